"""A user's script over the whole public API: `tests/test_types.py` has mypy check it, nothing runs it."""

from pathlib import Path

import affectdata


def work(recipe: Path) -> None:
    """Do the whole job, and look at every result."""
    for info in affectdata.list_sources():
        print(info.name, info.license, info.bibtex)
    folder = affectdata.sample("gaped", "gaped/")
    fetched = affectdata.download("wikiart/", limit=10)
    print(fetched.n_listed, fetched.counts, fetched.info.name)
    ingested = affectdata.ingest(folder, workers=2)
    print(ingested.counts, ingested.digest, [finding.text for finding in ingested.findings])
    manifest = affectdata.load_manifest(ingested.path)
    print(len(manifest), manifest.digest, manifest.path.name, manifest.to_pandas().columns)
    print(affectdata.query("SELECT count(*) FROM gaped"))  # type: ignore[misc]  # Arrow has no types
    print(affectdata.init(".").recipes)
    print(affectdata.groups(manifest).path.name, affectdata.report(manifest).path.name)
    print(affectdata.doctor())
    print(affectdata.compare("a.jpg", "b.jpg")[0].apart)
    combined = affectdata.concat([manifest, "manifests/oasis.parquet"], name="all")
    print(combined.n_rows, [conflict.column for conflict in combined.conflicts])
    print(affectdata.groups(manifest).n_groups, affectdata.groups(manifest).to_pandas().shape)
    assigned = affectdata.split("manifests/gaped.parquet", recipe)
    print(assigned.splits.rows["train"], assigned.n_without)
    selection = affectdata.select("manifests/gaped.parquet", "set.yaml")
    print(selection.to_pandas().shape, selection.folder, selection.is_optimal)
    suggested = affectdata.suggest("new/", recipe, model="model.safetensors")
    print(suggested.images.shape, suggested.error, suggested.missing)
    n, digest = affectdata.forget_splits("manifests/gaped.parquet")
    print(n, digest)
    print([finding.text for finding in affectdata.lint(recipe)])
    plan = affectdata.plan_balance(recipe)
    print(plan.splits.distance.bin["val"], plan.recipe.check.min_r2, plan.plan.cells[0].n_eff)
    print(plan.to_pandas().shape, plan.empty_splits)
    balanced = affectdata.balance(plan)
    release = affectdata.open_release(balanced.release.path)
    print(release.id, release.summary.balance.bins[0].shortfall, release.summary.rows["train"])
    verified = affectdata.verify(release, rebuild=4)
    print(verified.is_sound, [finding.text for finding in verified.findings])
    changed = affectdata.diff(release, balanced.release)
    print(changed.step, changed.cells, changed.added)
    print(affectdata.export(release, "folders").name)
    address, is_new = affectdata.publish(release, "s3://lab/sets")
    print(address.upper(), is_new)
    checked = affectdata.train_check(release, backbone="small_cnn", weights="none")
    figures = checked.document
    print(checked.outcome, checked.sentences, checked.rules.shape, checked.to_pandas().shape)
    print(figures.arms["release"].heads["regressor"].crossfit, figures.leak.looks.pairs[0].scored)
    print([rule.text for rule in figures.verdict.gate if rule.outcome == "fail"])
    page = affectdata.report(release, images=True)
    print(page.path, page.is_private, [path.name for path in page.figures])
    best = affectdata.study("study.yaml", release)
    print(best.folder, best.to_pandas().shape)
    print(affectdata.predict("model.safetensors", ["a.jpg"]).shape)
