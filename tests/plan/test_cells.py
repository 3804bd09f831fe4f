"""Which bin and stratum a row falls into."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from affectdata.errors import RecipeError
from affectdata.plan.cells import Cells, assign_cells
from tests.made import make_recipe, make_rows


def cells_of(values: list[Any], **recipe: Any) -> Cells:
    target = recipe.get("target", "valence")
    return assign_cells(
        make_rows([{target: value, "subtype": "A"} for value in values]), make_recipe(**recipe)
    )


def test_bins_hold_their_lower_edge_and_the_last_both() -> None:
    cells = cells_of([0.0, 9.999999, 10.0, 49.9, 50.0, 90.0, 100.0])
    assert cells.bin.tolist() == [0, 0, 1, 4, 5, 9, 9]
    assert (cells.bin_labels[0], cells.bin_labels[-1]) == ("[0,10)", "[90,100]")
    assert len(cells.bin_labels) == 10


@pytest.mark.parametrize(
    ("width", "edges"),
    [
        (30, [0, 30, 60, 90, 100]),
        (100, [0, 100]),
        (33.3, [0, 33.3, 66.6, 99.9, 100]),
        (12.5, [0, 12.5, 25, 37.5, 50, 62.5, 75, 87.5, 100]),
        (0.1, [round(0.1 * at, 6) for at in range(1001)]),
    ],
)
def test_a_width_cuts_the_scale_and_the_last_bin_takes_the_rest(width: float, edges: list[float]) -> None:
    assert cells_of([1.0], bins={"width": width}).edges == edges


def test_a_rating_on_a_decimal_edge_is_in_the_bin_that_starts_there() -> None:
    # 0.1 + 0.2 != 0.3: the stored column and the edges are both rounded to 6 decimals
    edges = [round(0.7 * at, 6) for at in range(1, 142)]
    cells = cells_of(edges, bins={"width": 0.7})
    assert cells.bin.tolist() == list(range(1, 142))


def test_edges_need_not_span_the_scale_but_every_row() -> None:
    cells = cells_of([40.0, 59.9, 60.0], bins={"edges": [40, 50, 60]})
    assert cells.bin.tolist() == [0, 1, 1]
    with pytest.raises(RecipeError, match=r"1 row has valence outside 40–60 \(e.g. 60.1\)") as caught:
        cells_of([40.0, 60.1], bins={"edges": [40, 50, 60]})
    assert caught.value.where == "bins.edges"


def test_nan_is_in_no_bin() -> None:
    with pytest.raises(RecipeError, match=r"1 row has valence outside 0–100 \(e.g. nan\)"):
        cells_of([40.0, float("nan")])


def test_edges_that_lie_close_have_labels_of_their_own() -> None:
    cells = cells_of([0.0, 33.3333335, 33.333334], bins={"edges": [0, 33.333333, 33.333334, 100]})
    assert len(set(cells.bin_labels)) == 3


def test_quantiles_hold_equally_many() -> None:
    cells = cells_of([float(value) for value in range(100)], bins={"quantiles": 4})
    assert np.bincount(cells.bin).tolist() == [25, 25, 25, 25]


def test_quantiles_over_ties_are_refused() -> None:
    with pytest.raises(RecipeError, match="4 quantiles give only 2 distinct bins") as caught:
        cells_of([10.0] * 50 + [20.0] * 50 + [30.0], bins={"quantiles": 4})
    assert caught.value.where == "bins.quantiles"


def test_a_string_target_needs_no_bins() -> None:
    cells = cells_of(["joy", "anger", "joy"], target="emotion", bins=None)
    assert cells.bin_labels == ["anger", "joy"]
    assert cells.bin.tolist() == [1, 0, 1]
    assert cells.names[1] == ["emotion=joy|subtype=A"]
    assert cells.edges is None


@pytest.mark.parametrize(("target", "values"), [("age", [30, 7, 30]), ("agreement", [0.5, 0.25, 0.5])])
def test_numbers_without_bins_are_taken_as_they_are(target: str, values: list[float]) -> None:
    cells = cells_of(values, target=target, bins=None)
    assert sorted(map(float, cells.bin_labels)) == sorted(set(values))
    assert [float(cells.bin_labels[code]) for code in cells.bin] == values


def test_strings_cannot_have_bins() -> None:
    with pytest.raises(RecipeError, match="emotion contains strings") as caught:
        cells_of(["joy"], target="emotion")
    assert caught.value.where == "bins"


def test_strata_are_crossed_and_only_what_occurs_is_a_stratum() -> None:
    rows = [
        {"valence": 5.0, "subtype": "A", "gender": "female"},
        {"valence": 95.0, "subtype": "P", "gender": "male"},
        {"valence": 5.0, "subtype": "A", "gender": "male"},
    ]
    cells = assign_cells(make_rows(rows), make_recipe(strata=["subtype", "gender"]))
    assert cells.stratum_labels == ["A|female", "A|male", "P|male"]
    assert cells.names[0][1] == "valence=[0,10)|subtype=A|gender=male"
    assert cells.code.tolist() == [0, 29, 1]


def test_values_with_a_bar_in_them_stay_apart() -> None:
    rows = [
        {"valence": 5.0, "theme": "a|b", "artist": "c"},
        {"valence": 5.0, "theme": "a", "artist": "b|c"},
    ]
    cells = assign_cells(make_rows(rows), make_recipe(strata=["theme", "artist"]))
    assert len(set(cells.stratum.tolist())) == 2
    assert set(cells.names[0]) == {"valence=[0,10)|theme=a|b|artist=c", "valence=[0,10)|theme=a|artist=b|c"}


def test_without_strata_there_is_one() -> None:
    cells = cells_of([5.0, 6.0], strata=[])
    assert cells.stratum_labels == ["all"]
    assert cells.names[0] == ["valence=[0,10)"]


@pytest.mark.parametrize(
    ("recipe", "where"),
    [({"target": "mood", "bins": None}, "target"), ({"strata": ["subtype", "mood"]}, "strata")],
)
def test_an_unknown_column_is_reported_with_the_known_ones(recipe: dict[str, Any], where: str) -> None:
    table = make_rows([{"valence": 1.0, "subtype": "A"}])
    with pytest.raises(RecipeError, match="no column 'mood' in the manifest") as caught:
        assign_cells(table, make_recipe(**recipe))
    assert caught.value.where == where
    assert "valence" in caught.value.fix


@pytest.mark.parametrize(("column", "where"), [("valence", "target"), ("subtype", "strata")])
def test_a_column_with_nulls_is_refused_with_a_remedy(column: str, where: str) -> None:
    rows = [{"valence": 1.0, "subtype": "A"}, {"valence": 2.0, "subtype": "A", column: None}]
    with pytest.raises(RecipeError, match=f"{column} is null in 1 of 2 rows") as caught:
        assign_cells(make_rows(rows), make_recipe())
    assert caught.value.where == where
    assert f"where: {column} IS NOT NULL" in caught.value.fix
