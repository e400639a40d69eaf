"""Lints the chart with Helm itself, renders it with several values, and checks the result against Kubernetes' schemas."""

import sys

import helm_python
import kubernetes_validate
import yaml

CHART = "deploy/helm/openfn-worker"
KUBERNETES = ["1.26", "1.31"]
# Kinds that Kubernetes does not know by itself.
CUSTOM = {"ScaledObject", "ServiceMonitor"}
CASES = {
    "defaults": {},
    "scaled by processor": {"autoscaling": {"enabled": True}},
    "scaled by runs": {"keda": {"enabled": True}},
    "kept from the cluster": {"networkPolicy": {"enabled": True}},
    "everything": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "podDisruptionBudget": {"enabled": True},
        "networkPolicy": {
            "enabled": True,
            "lightning": {"peers": [{"podSelector": {"matchLabels": {"app": "lightning"}}}], "port": 4000},
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}], "ports": [{"port": 5432}]}],
        },
        "seccompProfile": {"type": "Localhost", "localhostProfile": "profiles/openfn-worker.json"},
        "repo": {"existingClaim": "adaptors"},
        "imagePullSecrets": [{"name": "registry"}],
        "extraEnv": [{"name": "WORKER_WARM_HOSTS", "value": "2"}],
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "podAnnotations": {"a": "b"},
    },
}
REFUSED = {
    "a capacity of nothing": {"capacity": 0},
    "an address that is no websocket": {"lightning": {"url": "https://lightning", "existingSecret": "x"}},
    "a profile without a file": {"seccompProfile": {"type": "Localhost"}},
    "a Lightning without a port": {"networkPolicy": {"enabled": True, "lightning": {"peers": [{"podSelector": {}}]}}},
    "two that scale": {"autoscaling": {"enabled": True}, "keda": {"enabled": True}},
}


def documents(rendered):
    """Kubernetes' objects in what Helm renders, a text a template; notes are for people."""
    for name, text in rendered.items():
        if name.endswith(".yaml"):
            yield from (document for document in yaml.safe_load_all(text) if document)


def main():
    found = helm_python.lint(CHART)
    assert not found["errors"], found
    with helm_python.Chart.load(CHART) as chart:
        for name, values in CASES.items():
            kinds = []
            for document in documents(chart.render(values=values, name="lint", namespace="lint")):
                kinds.append(document["kind"])
                if document["kind"] not in CUSTOM:
                    versions = (kubernetes_validate.latest_version(), *KUBERNETES)
                    for version in versions:
                        kubernetes_validate.validate(document, version, strict=True)
                if document["kind"] == "Deployment":
                    grace = document["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
                    assert grace == 360, grace
            print(f"  {name}: {', '.join(sorted(kinds))}")
        for name, values in REFUSED.items():
            try:
                chart.render(values=values, name="lint", namespace="lint")
            except helm_python.HelmError as refusal:
                print(f"  {name}: refused, {str(refusal).strip().splitlines()[-1].strip()}")
            else:
                sys.exit(f"{name} is not refused")


main()
