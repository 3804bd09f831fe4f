"""The workflow as functions: each does what the command of the same name does, and the command calls it.

    list_sources, sample, download     what there is to ingest
    ingest, concat, groups, split      a source tree becomes a manifest
    init, query, compare               a recipe for it; SQL over manifests; how alike images are
    plan_balance, balance              manifests and a recipe become a release
    select, suggest                    a stimulus set from a manifest; which images to rate next
    verify, diff, export, publish      a release is checked, compared, and handed to others
    train_check, study                 models are trained on it
    report                             all of it as one HTML page
    doctor                             what is unfinished or broken in a working folder

Parameters are named like the options. The exceptions:

    ingest, download --map      column_map      (`map` is a function of Python)
    balance --dry-run           plan_balance    a function of its own, as it returns something else
    balance --lint              lint            the same
    split --forget              forget_splits   the same
    --root SOURCE=PATH          roots={source: path}
    train-check --no-crossfit   crossfit=False
    train-check --rules         affectdata.check.gate.RULES

Nothing here prints. `progress(stage, done, total)` is called as work goes on, and `note(text)` with what a
user should read at once, such as what is about to be downloaded. Errors are those of `affectdata.errors`. A
function imports what it needs in its body: `list_sources` loads no torch, and `ingest` no albumentations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from affectdata.errors import ImagesNotFound, UsageError
from affectdata.records import count_text
from affectdata.registry import load_plugin, load_usable
from affectdata.results import (
    BalancePlan,
    BalanceResult,
    CheckResult,
    GroupsResult,
    ReportResult,
    SplitResult,
    StudyResult,
    VerifyResult,
)
from affectdata.train.packaged import DEFAULT_BACKBONE
from affectdata.workers import THREADS

if TYPE_CHECKING:
    import pyarrow as pa

    from affectdata.images.compare import Distance
    from affectdata.manifest.concat import ConcatResult
    from affectdata.manifest.download import DownloadResult
    from affectdata.manifest.ingest import IngestResult
    from affectdata.manifest.manifest import Images, Manifest
    from affectdata.recipe.project import Project
    from affectdata.records import Finding, SourceInfo
    from affectdata.release.diff import ReleaseDiff
    from affectdata.release.release import Release
    from affectdata.release.workspace import Problem
    from affectdata.reporting.comparison import Side
    from affectdata.selection.selection import Selection
    from affectdata.selection.suggestion import Suggestion
    from affectdata.train.kept import KeptModel

PathLike: TypeAlias = str | Path
Roots: TypeAlias = Mapping[str, PathLike]
Progress: TypeAlias = Callable[[str, int, int], None]
Note: TypeAlias = Callable[[str], None]
FINETUNE = "finetune"


def list_sources() -> list[SourceInfo]:
    """Return the data sheets of all collections that `ingest` knows, by name."""
    return [cast("SourceInfo", plugin.INFO) for plugin in load_usable("sources").values()]


def sample(name: str, folder: PathLike, *, seed: int = 0) -> Path:
    """Write a small generated tree in the layout of a source, to try the other functions on.

    Raises:
        UsageError: no such source, or `folder` is not empty.
        SourceError: the source raised an exception.
    """
    from affectdata.reading.protocol import write_source_sample

    plugin, folder = load_plugin("sources", name), _local_path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not an empty folder", fix="choose another folder")
    write_source_sample(plugin, folder, seed)
    return folder


def download(
    root: PathLike,
    *,
    source: str | None = None,
    column_map: PathLike | None = None,
    out: PathLike | None = None,
    limit: int | None = None,
    workers: int = 8,
    note: Note | None = None,
    progress: Progress | None = None,
) -> DownloadResult:
    """Fetch the images whose addresses the tables in `root` have, to where `ingest` looks for them.

    Raises:
        SourceError: no such folder, no source recognises it, or it has no addresses.
        MissingError: the extra `download` is not installed.
    """
    from affectdata.manifest.download import download as fetch_images
    from affectdata.manifest.fetch import Limits
    from affectdata.reading.protocol import ReadOptions

    return fetch_images(
        Path(root),
        source=source or ("table" if column_map else None),
        options=ReadOptions(map_path=_path(column_map)),
        out=_path(out),
        limit=limit,
        limits=Limits(connections=workers),
        announce=note,
        progress=_stage(progress, "download"),
    )


def ingest(
    root: PathLike,
    *,
    source: str | None = None,
    column_map: PathLike | None = None,
    name: str | None = None,
    onto: Sequence[PathLike | Manifest] = (),
    variant: str | None = None,
    out: PathLike = "manifests",
    strict: bool = False,
    replace: bool = False,
    rehash: bool = False,
    trust_names: bool = False,
    workers: int | None = None,
    engine: str = THREADS,
    progress: Progress | None = None,
) -> IngestResult:
    """Turn a source's folder or archive into `out/<name>.parquet`, with its rejects and edges beside it.

    With `onto`, `root` is a table of labels for the images of these manifests. The objects below an address
    (s3://, gs://, az://) are first copied to a local cache, as far as they changed. Where a function takes a
    manifest, it takes its address in a bucket too.

    Raises:
        SourceError: no such folder, no source recognises it, or its tables are not what its layout says.
        UsageError: the manifest there was made from another folder and `replace` is not set, or an option has
            no effect.
    """
    from affectdata.manifest.ingest import ingest as ingest_tree
    from affectdata.manifest.overlay import overlay
    from affectdata.reading.protocol import ReadOptions

    source = source or ("table" if column_map else None)
    options = ReadOptions(map_path=_path(column_map), name=name, variant=variant)
    folder = _local(root, progress)
    if onto:
        idle = {"--strict": strict, "--rehash": rehash, "--trust-names": trust_names}
        refuse_options([name for name, given in idle.items() if given], "--onto: it opens no image")
        manifests = [_manifest(each) for each in onto]
        return overlay(
            folder,
            manifests,
            source=source,
            options=options,
            out=_local_path(out),
            replace=replace,
            workers=workers,
            engine=engine,
        )
    return ingest_tree(
        folder,
        source=source,
        options=options,
        out=_local_path(out),
        workers=workers,
        engine=engine,
        strict=strict,
        replace=replace,
        rehash=rehash,
        trust_names=trust_names,
        progress=_stage(progress, "ingest"),
    )


def concat(
    manifests: Sequence[PathLike | Manifest],
    *,
    name: str | None = None,
    out: PathLike = "manifests",
    on_conflict: str = "error",
    workers: int | None = None,
    engine: str = THREADS,
) -> ConcatResult:
    """Write the rows of several manifests as one, a row per image.

    Raises:
        UsageError: fewer than two manifests, no such policy, or a name that is taken.
        ManifestError: labels of one image differ, and `on_conflict` is "error".
    """
    from affectdata.manifest.concat import concat as concat_manifests

    opened = [_manifest(each) for each in manifests]
    return concat_manifests(opened, name, _local_path(out), on_conflict, workers, engine)


def groups(
    manifest: PathLike | Manifest,
    *,
    backbone: str = DEFAULT_BACKBONE,
    weights: str = "DEFAULT",
    device: str | None = None,
    out: PathLike | None = None,
    checks: PathLike = "checks",
    roots: Roots | None = None,
    workers: int | None = None,
    engine: str = THREADS,
    announce: Note | None = None,
    progress: Progress | None = None,
) -> GroupsResult:
    """Find cropped, mirrored, framed or re-encoded versions of one image, and write them as groups.

    The table `out` [default: NAME.groups.csv beside the manifest, of one in a bucket here] is what
    `split: {groups: FILE}` of a recipe reads. Images that the manifest groups already are not compared.
    Features are kept in `checks`.

    Raises:
        ImagesNotFound: the source images are not where they were.
        MissingError: the extra `train`, weights or the device are not there.
    """
    from affectdata.manifest.manifest import check_roots, load_manifest
    from affectdata.store.addresses import is_address
    from affectdata.train.backbones import load_backbone
    from affectdata.train.groups import describe_pairs, find_same_pairs, write_groups
    from affectdata.workers import default_workers

    opened = load_manifest(manifest, roots) if isinstance(manifest, str | Path) else manifest
    check_roots(roots or {}, [opened])
    images = opened.images()  # before the network: it may be missing
    network = load_backbone(backbone, weights, device, note=announce or _ignore)
    pairs = find_same_pairs(
        opened.table,
        images,
        network,
        _local_path(checks) / ".features",
        workers or default_workers(engine),
        _stage(progress, "features"),
        _stage(progress, "points"),
        engine,
    )
    name = f"{opened.name}.groups.csv"
    path = _local_path(out) if out else Path(name) if is_address(manifest) else opened.path.with_name(name)
    return GroupsResult(path, write_groups(opened.table, pairs, path), describe_pairs(opened.table, pairs))


def compare(first: PathLike, second: PathLike, *, hash: Sequence[str] = ()) -> list[Distance]:  # noqa: A002
    """Return how far two images are apart: by their pHash, then by other hashes [default: all kinds].

    Raises:
        DecodeError: one of them cannot be decoded.
        UsageError: no such hash.
    """
    from affectdata.images.compare import KINDS, compare_images
    from affectdata.store.files import read_regular

    return compare_images(read_regular(first), read_regular(second), list(hash) or KINDS)


def init(folder: PathLike, *, manifest: PathLike | None = None) -> Project:
    """Write a project folder: a recipe that fits `manifest` (default: each in its `manifests`), README.md.

    Existing files are kept.

    Raises:
        ManifestError: a manifest cannot be read.
        InputError: it has neither ratings nor classes, or the folder cannot be written.
    """
    from affectdata.recipe.project import write_project

    return write_project(_local_path(folder), _path(manifest))


def query(sql: str, *, manifests: PathLike = "manifests") -> pa.Table:
    """Run one SELECT over the manifests in a folder, or at an address (s3://, gs://, az://).

    Each is a table of its name, and `manifest` has all rows.

    Raises:
        UsageError: no manifest, not a single SELECT, or DuckDB rejects it.
    """
    import pyarrow as pa

    from affectdata.manifest.manifest import find_manifests, load_manifest
    from affectdata.manifest.query import query_tables

    paths = find_manifests(manifests)
    if not paths:
        raise UsageError(f"no manifest in {manifests}/", fix="create one: affectdata ingest ROOT")
    tables = {path.stem: load_manifest(path).table for path in paths}
    tables["manifest"] = pa.concat_tables(list(tables.values()), promote_options="default")
    return query_tables(tables, sql)


def split(
    manifest: PathLike, recipe: PathLike, *, split_from: PathLike | Release | None = None
) -> SplitResult:
    """Fill the column `split` of a manifest as a recipe says; splits that exist or once existed stay.

    Raises:
        RecipeError: the recipe is wrong in itself or does not fit the manifest.
        IntegrityError: a group has rows in two splits already.
    """
    from affectdata.manifest.ledger import (
        find_left_out,
        read_ledger,
        read_memory,
        splits_of,
        write_ledger,
    )
    from affectdata.manifest.manifest import load_manifest, write_manifest
    from affectdata.plan.planner import describe_splits, split_rows
    from affectdata.plan.rows import choose_rows
    from affectdata.recipe.recipe import find_recipe, read_recipe
    from affectdata.recipe.resolve import resolve_strata
    from affectdata.splits.assign import adopt_splits

    path = _local_path(manifest)
    loaded = load_manifest(path)
    spec = resolve_strata(read_recipe(find_recipe(str(recipe))), [loaded])
    columns = spec.group_columns
    memory = read_memory([loaded], _earlier(split_from, columns), columns)
    rows = choose_rows([loaded], spec, memory)
    rows = split_rows(rows, spec, memory=memory.merge(find_left_out([loaded], rows, columns)))
    table = adopt_splits(loaded.table, rows)
    write_ledger([splits_of(table), read_ledger(path), memory.rows], path)
    written = write_manifest(table, loaded.metadata, path)
    return SplitResult(written, describe_splits(rows, spec), table["split"].null_count)


def forget_splits(manifest: PathLike) -> tuple[int, str | None]:
    """Remove all splits of a manifest and its ledger; return how many images had one, and the digest."""
    from affectdata.manifest.ledger import forget_splits as forget

    return forget(_local_path(manifest))


def plan_balance(
    recipe: PathLike,
    *,
    manifest: Sequence[PathLike] = (),
    split_from: PathLike | Release | None = None,
    on_conflict: Literal["error", "drop-train"] = "error",
    roots: Roots | None = None,
    manifests: PathLike = "manifests",
    workers: int | None = None,
    engine: str = THREADS,
) -> BalancePlan:
    """Split the rows of manifests and level them as a recipe says; no image is touched.

    `recipe` is a file or the name of a packaged one. Without `manifest`, the recipe's sources are looked for
    in the folder `manifests`, else its only manifest is taken. The workers compare the images of several
    manifests.

    Raises:
        RecipeError: the recipe is wrong in itself or does not fit the manifests.
        IntegrityError: a group has rows in two splits already, and `on_conflict` is "error".
    """
    from affectdata.manifest.manifest import check_roots, choose_manifests, local_manifest
    from affectdata.plan.planner import describe_splits, plan_release
    from affectdata.recipe.lint import lint_recipe
    from affectdata.recipe.recipe import find_recipe, read_recipe
    from affectdata.recipe.resolve import resolve_strata, resolve_subtypes
    from affectdata.workers import default_workers

    spec = read_recipe(find_recipe(str(recipe)))
    remarks = lint_recipe(spec)
    roots, folder = roots or {}, _local_path(manifests)
    paths, fill = [local_manifest(path) for path in manifest], spec.balance.fill_from
    own = [path for path in paths if path.stem not in fill]
    spare = [path for path in paths if path.stem in fill]
    chosen = choose_manifests(own, spec.sources, folder, roots)
    others = choose_manifests(spare, fill, folder, roots) if fill else []
    check_roots(roots, [*chosen, *others])
    spec = resolve_strata(resolve_subtypes(spec, [*chosen, *others]), chosen)
    drop_train = on_conflict == "drop-train"
    earlier = _earlier(split_from, spec.group_columns)
    n_workers = workers or default_workers(engine)
    rows, plan = plan_release(
        chosen, others, spec, earlier=earlier, drop_train=drop_train, workers=n_workers, engine=engine
    )
    splits = describe_splits(rows, spec)
    n_left_out = sum(map(len, chosen)) - sum(splits.rows.values())
    return BalancePlan(spec, [*chosen, *others], rows, plan, splits, n_left_out, remarks)


def lint(recipe: PathLike) -> list[Finding]:
    """Return what looks unwise in the pipelines of a recipe; needs no data."""
    from affectdata.recipe.lint import lint_recipe
    from affectdata.recipe.recipe import find_recipe, read_recipe

    return lint_recipe(read_recipe(find_recipe(str(recipe))))


def balance(
    recipe: PathLike | BalancePlan,
    *,
    manifest: Sequence[PathLike] = (),
    out: PathLike = "releases",
    split_from: PathLike | Release | None = None,
    on_conflict: Literal["error", "drop-train"] = "error",
    link: PathLike | None = None,
    roots: Roots | None = None,
    manifests: PathLike = "manifests",
    workers: int | None = None,
    engine: str = THREADS,
    progress: Progress | None = None,
) -> BalanceResult:
    """Split, level and render the images of manifests as a recipe says, into `out/<recipe>-<id>/`.

    `recipe` may be what `plan_balance` returned; the options that make a plan have no effect then. `link` is
    a symbolic link to make to the release, in place of an earlier one.

    Raises:
        RecipeError: the recipe is wrong in itself or does not fit the manifests.
        IntegrityError: a group has rows in two splits already, a source image is not the one that was
            ingested, or the release that exists is damaged.
        ImagesNotFound: the source images are not where they were.
    """
    from affectdata.release.link import check_link, link_release
    from affectdata.release.publish import publish_release

    if link is not None:
        check_link(_local_path(link))
    plan = recipe
    if not isinstance(plan, BalancePlan):
        plan = plan_balance(
            plan,
            manifest=manifest,
            split_from=split_from,
            on_conflict=on_conflict,
            roots=roots,
            manifests=manifests,
            workers=workers,
            engine=engine,
        )
    release, is_new = publish_release(
        plan.manifests,
        plan.rows,
        plan.plan,
        plan.recipe,
        _local_path(out),
        workers=workers,
        engine=engine,
        progress=_stage(progress, "render"),
    )
    if link is not None:
        link_release(release.path, _local_path(link))
    return BalanceResult(release, plan, is_new)


def select(manifest: PathLike | Manifest, recipe: PathLike, *, out: PathLike = "selections") -> Selection:
    """Select a stimulus set: n images per cell of a design, matched between cells, in lists without overlap.

    `recipe` is the file of a request (docs/select.md). Writes `list.csv`, a manifest of the images and
    `select.json` to `out/<name>-<id>/`.

    Raises:
        RecipeError: the request is wrong, does not fit the manifest, or cannot be met; then the message names
            the limiting cell and the largest possible n.
    """
    from affectdata.selection.request import read_request
    from affectdata.selection.selection import select_images, write_selection

    loaded = _manifest(manifest)
    selection = select_images(loaded, read_request(_local_path(recipe)), _local_path(out), str(recipe))
    write_selection(selection, loaded)
    return selection


def suggest(
    folder: PathLike,
    recipe: PathLike,
    *,
    model: PathLike,
    top: int = 200,
    manifest: Sequence[PathLike] = (),
    out: PathLike = "suggestions",
    roots: Roots | None = None,
    manifests: PathLike = "manifests",
    note: Note | None = None,
) -> Suggestion:
    """Rank the unrated images of a folder by how well they would fill the short cells of a recipe.

    `model` was kept by `train_check` on a release of this recipe. Writes `suggestions.csv` and a rating task
    without predictions to `out`.

    Raises:
        UsageError: no such folder, or it has no files.
        RecipeError: the target is not a rating, a stratum cannot be predicted, or no image is held out.
        InputError: the model predicts something else, or no image is left.
        ImagesNotFound: the images of the manifest are not where they were.
    """
    from affectdata.selection.suggestion import suggest_images, write_suggestion
    from affectdata.train.model_file import load_model

    root = _local_path(folder)
    files = sorted(file for file in root.rglob("*") if file.is_file() and not file.name.startswith("."))
    if not files:
        raise UsageError(f"no files in {root}", fix="name a folder of images")
    plan = plan_balance(recipe, manifest=manifest, roots=roots, manifests=manifests)
    loaded = load_model(model, note=note or _ignore)
    found = suggest_images(files, plan.manifests, plan.rows, plan.recipe, loaded, top)
    write_suggestion(found, root, _local_path(out), plan.recipe.seed)
    return found


def verify(
    release: PathLike | Release | None = None,
    *,
    rebuild: int = 0,
    sample: Sequence[str] = (),
    releases: PathLike = "releases",
    manifests: PathLike = "manifests",
    roots: Roots | None = None,
    workers: int | None = None,
    engine: str = THREADS,
    progress: Progress | None = None,
) -> VerifyResult:
    """Check the files and the lineage of a release [default: the newest in `releases`].

    Of a release in a bucket every object is read again.
    `rebuild` is a number of images to render again and compare; `sample` names more of them.

    Raises:
        ManifestError: not a release.
        ImagesNotFound: images are to be rebuilt and their sources are not at hand.
    """
    from affectdata.release.rebuild import pick_rows
    from affectdata.release.rebuild import rebuild as rebuild_rows
    from affectdata.release.verify import check_release
    from affectdata.workers import default_workers

    opened = _release(release, releases, roots, again=True)
    n_workers = workers or default_workers(engine)
    findings = check_release(opened, _stage(progress, "verify"), n_workers, engine)
    n_rebuilt, notes = 0, list[str]()
    if (rebuild or sample) and not findings:
        rebuilt = rebuild_rows(opened, pick_rows(opened, rebuild, sample), _local_path(manifests))
        findings, n_rebuilt, notes = rebuilt.findings, rebuilt.n_rows, rebuilt.notes
    return VerifyResult(opened, findings, n_rebuilt, notes)


def doctor(folder: PathLike = ".") -> list[Problem]:
    """Examine a working folder; return what is unfinished, left over, foreign, orphaned or broken.

    Raises:
        UsageError: there is no such folder.
    """
    from affectdata.release.workspace import find_problems

    if not _local_path(folder).is_dir():
        raise UsageError(f"{folder} is not a folder", fix="name the folder with manifests/ and releases/")
    return find_problems(_local_path(folder))


def report(
    subject: PathLike | Manifest | Release | None = None,
    other: PathLike | Release | None = None,
    *,
    images: bool = False,
    figures: PathLike | None = None,
    out: PathLike = "checks",
    releases: PathLike = "releases",
    manifests: PathLike = "manifests",
    roots: Roots | None = None,
) -> ReportResult:
    """Write one self-contained HTML page about a release [default: the newest] and its check, or a manifest.

    The page is `out/<release>/report.html`, or `out/<name>.report.html` about a manifest. Images whose terms
    forbid passing them on are left out; `images` adds them, and the name then ends in `-private.html`.
    `figures` is a folder for the charts as SVG and PDF. `subject` may also be the folder of a study. With an
    `other` release, or the train-check.json of two checks, the page says what changed from the first to it.

    Raises:
        ManifestError: neither a release nor a manifest.
        UsageError: a manifest or a study is to be compared.
        MissingError: the extra `report` is not installed.
    """
    from affectdata.manifest.manifest import Manifest
    from affectdata.reporting.page import make_page, make_study, write_page
    from affectdata.reporting.study import STUDY_FILE
    from affectdata.reporting.subject import describe_manifest, describe_release
    from affectdata.store.remote import local_copy

    folders = {name: local_copy(path) for name, path in (roots or {}).items()}
    is_study = isinstance(subject, str | Path) and (Path(subject) / STUDY_FILE).is_file()
    if other is not None:
        if is_study or isinstance(subject, Manifest) or str(subject).endswith(".parquet"):
            raise UsageError("only two releases, or two checks, can be compared", fix="name two releases")
        from affectdata.reporting.comparison import make_comparison  # loads scikit-learn

        sides = [_side(each, releases, folders, _local_path(out)) for each in (subject, other)]
        page, name = make_comparison(*sides)
        path = _local_path(out) / f"{name}.report.html"
        return ReportResult(path, write_page(page, path, _path(figures))[1:], False)
    if is_study:
        folder = Path(cast("PathLike", subject))
        path = folder / "report.html"
        return ReportResult(path, write_page(make_study(folder), path, _path(figures))[1:], False)
    if isinstance(subject, Manifest) or str(subject).endswith(".parquet"):
        manifest = _manifest(cast("PathLike | Manifest", subject))
        described, target = describe_manifest(manifest), _local_path(out) / f"{manifest.name}.report.html"
    else:
        release = _release(subject, releases, folders)
        described = describe_release(release, _local_path(out), _local_path(manifests))
        target = _local_path(out) / release.name / "report.html"
    page = make_page(described, with_images=images, manifests=_local_path(manifests), roots=folders)
    if page.is_private:
        target = target.with_name(f"{target.stem}-private.html")
    _, *drawn = write_page(page, target, _path(figures))
    return ReportResult(target, drawn, page.is_private)


def _side(subject: PathLike | Release | None, releases: PathLike, roots: Roots, out: Path) -> Side:
    """Return a release with its check, or a check by its file, as one side of a comparison."""
    from affectdata.reporting.comparison import is_check, read_side, side_of

    if isinstance(subject, str | Path) and is_check(Path(subject)):
        return read_side(Path(subject))
    return side_of(_release(subject, releases, roots), out)


def publish(
    subject: PathLike | Release | Manifest,
    address: str,
    *,
    note: Note | None = None,
    progress: Progress | None = None,
) -> tuple[str, bool]:
    """Write a release or a manifest to a bucket, as `address/<name>`; return that, and whether it is new.

    A run that was interrupted goes on. Readers see nothing until the run ends. Objects that were removed
    later are written again. What takes a release or a
    manifest takes the address in its place. A manifest is one object; its rejects, edges and ledger are
    others.

    Raises:
        IntegrityError: `verify` rejects the release, or something else of that name is there.
        InputError: the store cannot be reached, or denies access.
    """
    from affectdata.manifest.manifest import Manifest, files_beside
    from affectdata.release.release import INFO_FILE
    from affectdata.release.verify import require_verified
    from affectdata.store.published import publish_folder, publish_table

    if isinstance(subject, Manifest) or str(subject).endswith(".parquet"):
        manifest = _manifest(cast("PathLike | Manifest", subject))
        path, free = manifest.path, all(part.get("redistributable") for part in manifest.parts)
        target, write = f"{address.rstrip('/')}/{path.name}", partial(publish_table, path, files_beside(path))
    else:
        opened = _release(subject)
        require_verified(opened, hash_images=False)  # `publish_folder` does that
        target = address = f"{address.rstrip('/')}/{opened.path.resolve().name}"
        free = opened.info.get("terms", {}).get("redistributable")
        write = partial(publish_folder, opened.path, INFO_FILE)
    if note and not free:
        note("note: the terms of its images forbid passing them on: keep the bucket private")
    is_new, n_restored = write(address, _stage(progress, "publish"))
    if note and n_restored:
        note(f"note: written again, because it was missing there: {count_text(n_restored, 'object')}")
    return target, is_new


def diff(old: PathLike | Release, new: PathLike | Release) -> ReleaseDiff:
    """Return what changed from one release to another, and the version step that follows.

    Raises:
        IntegrityError: release.json of one of them is not the one that was published.
    """
    from affectdata.release.diff import diff_releases
    from affectdata.release.info import require_content_hash

    releases = [_release(each) for each in (old, new)]
    for each in releases:
        require_content_hash(each.info, str(each.path))
    return diff_releases(*releases)


def export(
    release: PathLike | Release,
    to: str,
    *,
    out: PathLike | None = None,
    by: str | None = None,
    i_may_redistribute: bool = False,
    roots: Roots | None = None,
    workers: int | None = None,
    engine: str = THREADS,
    progress: Progress | None = None,
) -> Path:
    """Write a release in the form `to` and return the folder.

    Forms: folders, hf, webdataset, croissant, fiftyone, label_studio, and those of plugins.

    Raises:
        UsageError: the terms forbid it, `out` is taken, or the form has no classes for `by`.
        IntegrityError: the release is not what it claims to be.
        ImagesNotFound: the release is virtual and its source images are not at hand.
    """
    from affectdata.exports._write import export_release

    opened = _release(release, roots=roots)
    folder = _path(out) or Path("exports") / f"{opened.name}-{to}"
    export_release(
        opened,
        to,
        folder,
        by=by,
        may_redistribute=i_may_redistribute,
        workers=workers,
        engine=engine,
        progress=_stage(progress, "export"),
    )
    return folder


def train_check(
    release: PathLike | Release | None = None,
    *,
    backbone: str | Sequence[str] = DEFAULT_BACKBONE,
    weights: str | Sequence[str] = "DEFAULT",
    device: str | None = None,
    mode: Literal["frozen", "finetune"] = "frozen",
    steps: int | None = None,
    size: int | None = None,
    splits: int | None = None,
    check: PathLike | None = None,
    crossfit: bool = True,
    keep_model: PathLike | None = None,
    head: str | None = None,
    maps: int | None = None,
    out: PathLike = "checks",
    releases: PathLike = "releases",
    manifests: PathLike = "manifests",
    roots: Roots | None = None,
    workers: int | None = None,
    engine: str = THREADS,
    note: Note | None = None,
    announce: Note | None = None,
    progress: Progress | None = None,
) -> CheckResult:
    """Train on a release [default: the newest], score on untouched originals, and judge by the rules.

    Features of several networks (`backbone`, with `weights` for each in order) are used together. `announce`
    is called before weights are downloaded [default: `note`]; `head` is that of the kept model: plain,
    subtype_aware, calibrated, or stacked:NAME with another manifest [default: plain].

    Raises:
        UsageError: an option has no effect in this mode, or takes one network only; or no head has this name.
        IntegrityError: the release breaks its promises.
        InputError: there is nothing to train on or to score.
        MissingError: the extra `train`, weights or the device are not there.
    """
    from affectdata.check.arms import PLAIN
    from affectdata.check.check import run_check
    from affectdata.check.final import check_head, fit_final, fit_final_networks, source_of
    from affectdata.check.maps import check_maps, draw_maps, explain_no_clearest
    from affectdata.check.model_card import check_scores, write_card
    from affectdata.check.prepare import prepare_check
    from affectdata.check.resume import FOLDER, SplitStore
    from affectdata.check.tuned import prepare_networks
    from affectdata.config import parse_model, read_yaml
    from affectdata.manifest.manifest import load_others
    from affectdata.recipe.bounds import Check
    from affectdata.train.backbones import load_backbones
    from affectdata.train.model_file import check_name
    from affectdata.train.model_file import keep_model as write_model
    from affectdata.workers import default_workers

    note, out, model_path = note or _ignore, _local_path(out), _path(keep_model)
    _check_mode(mode, steps=steps, size=size, splits=splits, keep_model=keep_model, head=head, maps=maps)
    if head and not keep_model and not maps:
        refuse_options(["--head"], "a check that keeps no model")
    if model_path:
        check_name(model_path)
    opened = _release(release, releases, roots)
    bounds = parse_model(Check, read_yaml(Path(check)), str(check)) if check else None
    network, *more = load_backbones(backbone, weights, device, note=announce or note)
    if more:
        _refuse_with_several(mode, keep_model=keep_model, maps=maps)
    if maps:
        check_maps(opened)
    n_workers = workers or default_workers()
    images, why_none = _find_images(opened, crossfit, note)
    others: list[Manifest] = []
    if images:
        others, found = load_others(opened.table, _local_path(manifests), opened.roots, warn=note)
        images = replace(images, roots={**images.roots, **found})
    prepared = prepare_check(
        opened,
        network,
        images,
        out,
        more_backbones=more,
        others=others,
        check=bounds,
        why_none=why_none,
        workers=n_workers,
        engine=engine,
        progress=_stage(progress, "features"),
    )
    note(f"features: {count_text(len(prepared.image_pool), 'image')}, {prepared.image_pool.n_new} new")
    check_head(prepared, head or PLAIN)
    fit: Callable[[], KeptModel]
    if mode == FINETUNE:
        networks = partial(prepare_networks, n_splits=splits, steps=steps, size_px=size, note=note)
        prepared, learner = networks(prepared, out, workers=n_workers, progress=_stage(progress, "images"))
        checked = run_check(prepared, learner, progress=_stage(progress, "train"))
        path, fit = checked.write(out), partial(fit_final_networks, prepared, learner)
    else:
        store = SplitStore(out / opened.name / FOLDER, prepared.others)
        checked = run_check(prepared, store=store, workers=n_workers, progress=_stage(progress, "train"))
        path, fit = checked.write(out), partial(fit_final, prepared, head or PLAIN)
        store.clear()
    model = fit() if model_path or maps else None
    if model and model_path:
        write_model(model, model_path)
        scores = check_scores(checked.document, head or PLAIN)
        write_card(model, model_path, opened.info, scores, source_of(prepared, head or PLAIN))
    drawn = draw_maps(prepared, model, maps, path.parent / "maps") if model and maps else []
    if model and maps and (reason := explain_no_clearest(model, drawn)):
        note(f"note: {reason}")
    return CheckResult(checked.document, checked.predictions, path, model_path, drawn)


def study(
    study: PathLike,
    release: PathLike | Release | None = None,
    *,
    device: str | None = None,
    keep_model: PathLike | None = None,
    out: PathLike = "checks",
    releases: PathLike = "releases",
    roots: Roots | None = None,
    workers: int | None = None,
    note: Note | None = None,
    progress: Progress | None = None,
) -> StudyResult:
    """Train networks, or heads on frozen features, with many settings on one release; compare them on val.

    `study` is a file, or the name of a study in `./studies` or of the package. A run whose weights cannot be
    found is skipped, and `note` says so. `keep_model` is a file for the model of the best combination,
    trained again with the first seed.

    Raises:
        RecipeError: a setting is unknown or has no such value.
        InputError: the release has no val split or no such arm, or the loss does not fit its target.
        MissingError: the extra `train` or the device is not there, or the weights of every run.
        UsageError: no study has this name, or a setting has no effect.
    """
    from affectdata.check.study import find_study
    from affectdata.check.trials import study_release
    from affectdata.workers import default_workers

    found, folder = study_release(
        _release(release, releases, roots),
        find_study(str(study)),
        _local_path(out),
        device=device,
        keep=_path(keep_model),
        workers=workers or default_workers(),
        note=note or _ignore,
        progress=_stage(progress, "runs"),
    )
    return StudyResult(found, folder, _path(keep_model))


def _check_mode(mode: str, **given: object) -> None:
    """Refuse options that the other mode takes.

    Raises:
        UsageError: naming them, or an unknown mode.
    """
    both = ("keep_model", "maps")
    takes = {"frozen": (*both, "head"), FINETUNE: (*both, "steps", "size", "splits")}
    if mode not in takes:
        raise UsageError(f"unknown mode {mode!r}", fix=f"known: {', '.join(takes)}")
    idle = [name for name, value in given.items() if value is not None and name not in takes[mode]]
    refuse_options([f"--{name.replace('_', '-')}" for name in idle], f"--mode {mode}")


def _refuse_with_several(mode: str, **given: object) -> None:
    """Refuse what takes one network only.

    Raises:
        UsageError: naming it.
    """
    idle = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    idle += [f"--mode {FINETUNE}"] if mode == FINETUNE else []
    if idle:
        raise UsageError(
            f"{' and '.join(idle)} cannot be used with several networks", fix="give --backbone once"
        )


def refuse_options(options: Sequence[str], where: str) -> None:
    """Refuse options that have no effect, if there are any.

    Raises:
        UsageError: naming them.
    """
    if options:
        verb = "has" if len(options) == 1 else "have"
        raise UsageError(f"{', '.join(options)} {verb} no effect with {where}", fix="leave it out")


def _find_images(release: Release, crossfit: bool, note: Note) -> tuple[Images | None, str]:
    """Return the reader of the source images, or why there is none."""
    if not crossfit:
        return None, "--no-crossfit was given"
    try:
        return release.images(), ""
    except ImagesNotFound as error:
        note(f"note: only the held-out score\n{error}")
        return None, error.what


def _local(root: PathLike, progress: Progress | None) -> Path:
    """Return the folder of a source; of one in a bucket, its local copy, which is brought up to date."""
    from affectdata.store.addresses import is_address

    if not is_address(root):
        return Path(root)
    from affectdata.store.trees import fetch_tree

    return fetch_tree(root, _stage(progress, "fetch"))


def _release(
    release: PathLike | Release | None,
    releases: PathLike = "releases",
    roots: Roots | None = None,
    again: bool = False,
) -> Release:
    """Open a release, or the newest in the folder `releases`; one that is open stays as it is."""
    from affectdata.release.release import Release, newest_release, open_release

    if isinstance(release, Release):
        return release
    chosen = newest_release(_local_path(releases)) if release is None else release
    return open_release(chosen, roots, again=again)


def _earlier(release: PathLike | Release | None, columns: Sequence[str]) -> pa.Table | None:
    """Return the splits to take over from a release, which must not contradict itself."""
    from affectdata.release.held_out import earlier_splits
    from affectdata.release.lineage import validate_release

    if release is None:
        return None
    opened = _release(release)
    validate_release(opened, with_files=False)
    return earlier_splits(opened, columns)


def _manifest(manifest: PathLike | Manifest) -> Manifest:
    from affectdata.manifest.manifest import Manifest, load_manifest

    return manifest if isinstance(manifest, Manifest) else load_manifest(manifest)


def _path(path: PathLike | None) -> Path | None:
    return None if path is None else _local_path(path)


def _local_path(path: PathLike) -> Path:
    """Return a path; an address would be the name of a local folder."""
    if isinstance(path, str) and "://" in path:
        raise UsageError(
            f"{path}: only local paths can be used here",
            fix="use a local folder; `publish` writes releases and manifests to a bucket",
        )
    return Path(path)


def _stage(progress: Progress | None, stage: str) -> Callable[[int, int], None] | None:
    return None if progress is None else partial(progress, stage)


def _ignore(text: str) -> None:
    """Do nothing with a note."""
