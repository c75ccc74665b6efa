"""Renders everything for Kubernetes that is shipped, holds it to the API's schemas, and prints it as JSON by name.

Called with a chart's directory and a file of values instead, it renders that alone.
"""

import json
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import yaml
from helm_python import Chart
from helm_python.chart import lint

# The oldest version that the chart says it is for has no schema in the package; these are its newest and an older one.
VERSIONS = ("1.37", "1.30")
# The Prometheus operator's, which are no part of Kubernetes.
OPERATOR = {"ServiceMonitor", "PrometheusRule"}
WARNING = 2

kubernetes = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"


def held(name, resources):
    """The resources, where each fits the schema of its kind without an unknown key."""
    for resource in resources:
        if resource["kind"] in OPERATOR:
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(resource, version, strict=True)
            except Exception as error:
                sys.exit(f"{name}: {resource['kind']} {resource['metadata']['name']}, {version}: {error}")
    return resources


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def kustomized(directory):
    kubectl = Path(sys.executable).parent / "kubectl"
    done = subprocess.run([kubectl, "kustomize", directory], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{directory}: {done.stderr}")
    return documents(done.stdout)


def charted(chart, values):
    report = lint(chart, values, strict=True)
    wrong = report["errors"] + [message["error"] for message in report["messages"] if message["severity"] >= WARNING]
    if wrong:
        sys.exit(f"{chart}: {wrong}")
    rendered = Chart.load(chart).render(values, name="one", namespace="rotad")
    return [document for name, text in sorted(rendered.items()) if not name.endswith(".txt") for document in documents(text)]


def main():
    if sys.argv[1:]:
        chart, values = sys.argv[1:]
        made = {"chart": held("chart", charted(chart, yaml.safe_load(Path(values).read_text())))}
    else:
        directories = [kubernetes / "base", *sorted((kubernetes / "overlays").iterdir())]
        made = {f"kustomize {directory.name}": held(directory, kustomized(directory)) for directory in directories}
        for values in sorted((kubernetes / "chart" / "ci").iterdir()):
            resources = charted(kubernetes / "chart", yaml.safe_load(values.read_text()))
            made[f"chart {values.name}"] = held(values, resources)
    json.dump(made, sys.stdout)


if __name__ == "__main__":
    main()
