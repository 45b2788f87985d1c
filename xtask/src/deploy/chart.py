"""Checks what the chart renders: chart.py BIN PLUGINS MANIFESTS...

Each object against the schemas that Kubernetes publishes, of the oldest and the newest version that the chart names; what the
documentation promises of the pods; and each configuration as the programs themselves judge it, from files laid out as the
kubelet lays them out. BIN is where the programs are, or `-`: then that last part is left out, and said so.
Prints a line a failure; exits 1 where there was one, 3 where something was left out.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

VERSIONS = ["1.27.0", "1.31.0", "1.35.0", kubernetes_validate.latest_version()]
WORKLOADS = {"DaemonSet", "StatefulSet", "Deployment"}
failures = []


def fail(where, what):
    failures.append(f"{where}: {what}")


def check_schema(where, thing):
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            fail(where, f"Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}")


def name(thing):
    return f"{thing['kind']}/{thing['metadata']['name']}"


def check_pod(where, workload, things):
    """What the book says of every pod."""
    pod = workload["spec"]["template"]["spec"]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    if not workload["spec"]["selector"]["matchLabels"].items() <= labels.items():
        fail(where, "the selector does not match the pods")
    if pod.get("automountServiceAccountToken") is not False:
        fail(where, "a ServiceAccount's token is mounted")
    if pod.get("enableServiceLinks") is not False:
        fail(where, "variables of Services, which begin with PICKET_, would reach the configuration")
    if f"ServiceAccount/{pod['serviceAccountName']}" not in things:
        fail(where, f"there is no ServiceAccount {pod['serviceAccountName']}")
    for account in (t for t in things.values() if t["kind"] == "ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            fail(name(account), "its token is mounted")
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
    whole = pod.get("securityContext", {})
    for container in pod.get("initContainers", []) + pod["containers"]:
        here = f"{where} container {container['name']}"
        context = {**whole, **container.get("securityContext", {})}
        if context.get("readOnlyRootFilesystem") is not True:
            fail(here, "its root can be written")
        if "seccompProfile" not in context:
            fail(here, "no seccompProfile")
        if not context.get("privileged"):
            if context.get("allowPrivilegeEscalation") is not False:
                fail(here, "it can gain privileges")
            if "ALL" not in context.get("capabilities", {}).get("drop", []):
                fail(here, "it keeps capabilities that nobody asked for")
        if context.get("runAsUser") != 0 and context.get("runAsNonRoot") is not True:
            fail(here, "runAsNonRoot is not set")
        if any("gpu" in key for kind in container["resources"].values() for key in kind):
            fail(here, "it takes a GPU from the scheduler")
        if not container.get("resources", {}).get("limits", {}).get("memory"):
            fail(here, "no bound on its memory")
        if container in pod["containers"]:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if probe not in container:
                    fail(here, f"no {probe}")
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes and mount["name"] not in claims:
                fail(here, f"there is no volume {mount['name']}")
    for volume in volumes.values():
        wanted = volume.get("configMap", {}).get("name")
        if wanted and f"ConfigMap/{wanted}" not in things:
            fail(where, f"there is no ConfigMap {wanted}")


def lay_out(pod, things, folder):
    """The volume `config` as the kubelet makes it: links to links, which a program has to follow."""
    volume = next(volume["configMap"] for volume in pod["volumes"] if volume["name"] == "config")
    data = things[f"ConfigMap/{volume['name']}"]["data"]
    items = volume.get("items") or [{"key": key, "path": key} for key in data]
    real = folder / "..2026_01_01"
    for item in items:
        file = real / item["path"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(data[item["key"]])
    (folder / "..data").symlink_to("..2026_01_01")
    for top in {item["path"].split("/")[0] for item in items}:
        (folder / top).symlink_to(f"..data/{top}")


def check_config(where, workload, things, bin_folder, plugins):
    pod = workload["spec"]["template"]["spec"]
    container = pod["containers"][0]
    program = "picket-agent" if container["name"] == "agent" else "picket-aggregator"
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        lay_out(pod, things, folder)
        environment = {"PATH": os.environ["PATH"]}
        if program == "picket-agent":
            # In the image the plugins lie elsewhere, and are signed; here it is the configuration that is judged.
            environment |= {
                "PICKET_PLUGIN_DIR": str(plugins),
                "PICKET_STATE_DIR": f"{place}/state",
                "PICKET_CACHE_DIR": f"{place}/cache",
                "PICKET_TRUST__ALLOW_UNSIGNED": "true",
                "PICKET_TRUST__POLICY": f"{place}/none.toml",
            }
            check_policy(where, folder, things)
        command = [str(bin_folder / program), "check-config", "--config", str(folder / pathlib.Path(container["args"][-1]).name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        said = done.stderr.strip()
        if done.returncode != 0:
            fail(where, f"{program} check-config exits {done.returncode}: {said}")
        if program == "picket-agent":
            wanted = sorted(p.name for p in (folder / "conf.d").iterdir()) if (folder / "conf.d").exists() else []
            for file in wanted:
                for plugin in re.findall(r"^\[plugins\.([a-z-]+)\]", (folder / "conf.d" / file).read_text(), re.M):
                    if f"[plugins.{plugin}]" not in done.stdout:
                        fail(where, f"conf.d/{file} is not in force: no plugin {plugin}")
        elif "0.0.0.0:9470" not in done.stdout or f"{workload['metadata']['name']}." not in done.stdout:
            fail(where, f"the aggregator would not be found: {done.stdout}")


def check_policy(where, folder, things):
    """The policy's keys are files of the image or of the volume."""
    for file in re.findall(r'^file = "(.*)"', (folder / "policy.toml").read_text(), re.M):
        inside = file.removeprefix("/etc/picket/")
        if file != "/usr/share/picket/keys/image.pub" and not (folder / inside).exists():
            fail(where, f"the policy names {file}, which is not there")


def main():
    bin_folder, plugins, *files = sys.argv[1:]
    # So that a check that lets everything pass is seen.
    broken = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"port": 1}}
    check_schema("broken", broken)
    if len(failures) != len(VERSIONS):
        sys.exit("the schemas accept a Service without sense")
    failures.clear()
    count = 0
    for file in files:
        things = {name(thing): thing for thing in yaml.safe_load_all(open(file)) if thing}
        if not things:
            fail(file, "nothing was rendered")
        for where, thing in things.items():
            count += 1
            where = f"{pathlib.Path(file).stem}: {where}"
            check_schema(where, thing)
            if thing["kind"] in WORKLOADS:
                check_pod(where, thing, things)
                if bin_folder != "-":
                    check_config(where, thing, things, pathlib.Path(bin_folder), plugins)
    for failure in failures:
        print(failure)
    print(f"{count} objects of {len(files)} sets of values, Kubernetes {', '.join(VERSIONS)}", file=sys.stderr)
    sys.exit(1 if failures else 3 if bin_folder == "-" else 0)


main()
