"""The metrics on the page."""

from __future__ import annotations

import report_files

from job.evaluation.report import performance


def texts(table: performance.Table) -> dict[str, list[str]]:
    """Return the rows of a table: name -> texts."""
    return {row.name: [cell.text.replace("\u202f", " ") for cell in row.cells] for row in table.rows}


def test_scores() -> None:
    """Both splits have a column if the run has both; what a run has not recorded is n/a."""
    metrics = report_files.metrics(report_files.TWO)
    both = performance.scores(metrics | {"test": {"images": 60, "accuracy": 0.95}})

    assert ["validation"] == performance.scores(metrics).columns
    assert ["validation", "test"] == both.columns
    assert (["122", "60"], ["97.5 %", "95.0 %"], ["0.042", "n/a"]) == tuple(
        texts(both)[name] for name in ("images", "accuracy", "Brier score")
    )
    assert "n/a: the run has not recorded it." in both.note


def test_class_weights() -> None:
    """Where the loss was weighted, each label has its weight; else there is no such column."""
    labels = report_files.MANY[:2]
    metrics = report_files.metrics(labels, 900)
    assert "class weight" not in performance.labels(metrics).columns
    metrics["class_weights"] = dict(zip(labels, (0.5, 1.5), strict=True))
    table = performance.labels(metrics)

    assert "class weight" == table.columns[-1]
    assert {labels[0]: 0.5, labels[1]: 1.5} == {row.name: row.cells[-1].sort for row in table.rows}


def test_labels() -> None:
    """Labels are sorted by their F1; what is undefined has its reason and comes last."""
    labels = report_files.MANY[:9]
    metrics = report_files.metrics(labels, 900)
    metrics["validation"]["labels"][labels[3]]["f1"] = None
    table = performance.labels(metrics)
    f1 = [row.cells[3].sort for row in table.rows]

    assert (9, labels[3], None) == (len(f1), table.rows[-1].name, f1[-1])
    assert sorted(f1[:-1]) == f1[:-1]
    assert "n/a: no validation image has the label." in table.note
    assert "90.0 % to 100 %" == table.rows[1].cells[2].note.replace("\u202f", " ")


def test_ablation() -> None:
    """Each step has its accuracy as a point in its interval."""
    table = performance.ablation(report_files.metrics(report_files.TWO))

    assert (0.89, 0.93, 0.95) == tuple(round(x, 2) for x in table.rows[1].bar or ())
    assert ["93.0 %", "93.0 %", "0.200"] == texts(table)["end of stage 1, feature extraction"]
    assert [] == performance.ablation({}).rows


def test_remarks() -> None:
    """Temperature and threshold are sentences; without them there are none."""
    temperature, threshold = performance.remarks(report_files.metrics(report_files.TWO))

    assert "A temperature of 1.31" in temperature
    assert "“dogs” on the validation images is at a threshold of 0.420" in threshold
    assert [] == performance.remarks({})


def test_remark_on_a_missing_temperature() -> None:
    """A temperature that could not be fitted has its reason."""
    calibration = {"temperature": None, "log_loss": None, "unavailable": {"temperature": "every image is wrong"}}

    assert ["The temperature is n/a: every image is wrong."] == performance.remarks({"calibration": calibration})


def test_confused() -> None:
    """Pairs come with their images, most frequent first."""
    assert [("dogs", "cats", 2), ("cats", "dogs", 1)] == performance.confused(report_files.metrics(report_files.TWO))
