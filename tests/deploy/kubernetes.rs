//! What is shipped for Kubernetes, rendered offline by the tools that people use (`tests/deploy/render.py`) and held to the
//! API's schemas: a kustomize base with overlays, and a Helm chart with several files of values.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::tools::{from_pypi, ran, repository, said, yaml};

type Rendered = BTreeMap<String, Vec<Value>>;

fn render(arguments: &[&Path]) -> Output {
    ran(Command::new(from_pypi("python3")).arg("-B").arg(repository("tests/deploy/render.py")).args(arguments))
}

/// Everything that is shipped, by the name of its rendering.
fn shipped() -> &'static Rendered {
    static SHIPPED: OnceLock<Rendered> = OnceLock::new();
    SHIPPED.get_or_init(|| {
        let output = render(&[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    })
}

fn of_kind<'r>(resources: &'r [Value], kind: &str) -> Vec<&'r Value> {
    resources.iter().filter(|resource| resource["kind"] == kind).collect()
}

/// The one resource of its kind.
fn one<'r>(resources: &'r [Value], kind: &str) -> &'r Value {
    let found = of_kind(resources, kind);
    assert_eq!(found.len(), 1, "{kind}");
    found[0]
}

/// `one` is a part of `other`.
fn is_part(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.iter().all(|(key, value)| other.get(key).is_some_and(|other| is_part(value, other)))
        }
        _ => one == other,
    }
}

#[test]
fn everything_renders_and_fits_the_schemas() {
    let names: Vec<&str> = shipped().keys().map(String::as_str).collect();
    let expected = [
        "chart aws-values.yaml",
        "chart replicas-values.yaml",
        "chart small-values.yaml",
        "chart vault-values.yaml",
        "kustomize aws",
        "kustomize base",
        "kustomize replicas",
        "kustomize vault",
    ];
    assert_eq!(names, expected);
}

/// Where several replicas are meant.
fn has_several(name: &str) -> bool {
    name.contains("replicas")
}

#[test]
fn one_replica_keeps_its_journal() {
    for (name, resources) in shipped().iter().filter(|(name, _)| !has_several(name)) {
        let set = &one(resources, "StatefulSet")["spec"];
        assert_eq!(set["replicas"], 1, "{name}: one journal has one writer");
        let claims = set["volumeClaimTemplates"].as_array().unwrap();
        assert!(claims.len() == 1 && claims[0]["spec"]["accessModes"].as_array().unwrap().len() == 1, "{name}");
        assert_eq!(set["persistentVolumeClaimRetentionPolicy"], json!({ "whenDeleted": "Retain", "whenScaled": "Retain" }));
        let mounts = set["template"]["spec"]["containers"][0]["volumeMounts"].as_array().unwrap();
        let journal = mounts.iter().find(|mount| mount["mountPath"] == "/var/lib/rotad").unwrap();
        assert_eq!(journal["name"], claims[0]["metadata"]["name"], "{name}");
        assert!(of_kind(resources, "PodDisruptionBudget").is_empty(), "{name}: a drain would wait for ever");
    }
}

/// One works and the others take over: on other hosts, without a volume, and never all drained at once.
#[test]
fn several_replicas_share_a_database_and_no_volume() {
    let several: Vec<_> = shipped().iter().filter(|(name, _)| has_several(name)).collect();
    assert_eq!(several.len(), 2);
    for (name, resources) in several {
        let set = &one(resources, "StatefulSet")["spec"];
        assert_eq!((&set["replicas"], &set["podManagementPolicy"]), (&json!(3), &json!("Parallel")), "{name}");
        assert!(set["volumeClaimTemplates"].is_null() && set["persistentVolumeClaimRetentionPolicy"].is_null(), "{name}");
        let pod = &set["template"]["spec"];
        let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
        assert!(mounts.iter().all(|mount| mount["name"] != "journal"), "{name}");
        let labels = &set["template"]["metadata"]["labels"];
        let spread = &pod["topologySpreadConstraints"][0];
        assert_eq!(spread["topologyKey"], "kubernetes.io/hostname", "{name}");
        let budget = &one(resources, "PodDisruptionBudget")["spec"];
        assert_eq!(budget["maxUnavailable"], 1, "{name}");
        for selector in [&spread["labelSelector"], &budget["selector"]] {
            assert!(is_part(&selector["matchLabels"], labels) && selector["matchLabels"].is_object(), "{name}: {selector}");
        }
        let configuration = of_kind(resources, "ConfigMap")[0]["data"]["rotad.toml"].as_str().unwrap();
        assert!(configuration.contains("standby = true") && configuration.contains("postgres://"), "{name}");
        let egress = one(resources, "NetworkPolicy")["spec"]["egress"].as_array().unwrap();
        let database = |rule: &Value| rule["ports"].as_array().is_some_and(|ports| ports.iter().any(|port| port["port"] == 5432));
        assert!(egress.iter().any(database), "{name}");
    }
}

#[test]
fn every_pod_is_restricted() {
    for (name, resources) in shipped() {
        let set = &one(resources, "StatefulSet")["spec"];
        let pod = &set["template"]["spec"];
        // The promise is 20 s after SIGTERM.
        assert!(pod["terminationGracePeriodSeconds"].as_u64() > Some(20), "{name}");
        let restricted =
            json!({ "runAsNonRoot": true, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": { "type": "RuntimeDefault" } });
        assert!(is_part(&restricted, &pod["securityContext"]), "{name}: {}", pod["securityContext"]);
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        let container = &pod["containers"][0];
        let restricted =
            json!({ "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] } });
        assert_eq!(container["securityContext"], restricted, "{name}");
        assert!(container["resources"]["limits"]["memory"].is_string(), "{name}: without a limit its memory may be swapped");
        assert!(container["resources"]["limits"]["cpu"].is_null(), "{name}: throttled, it is late");
        for (probe, path) in [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
            assert_eq!(container[probe]["httpGet"], json!({ "path": path, "port": "metrics" }), "{name}");
        }
        let mounts = container["volumeMounts"].as_array().unwrap();
        assert!(mounts.iter().all(|mount| mount["subPath"].is_null()), "{name}: a single file never changes");
    }
    for (name, resources) in shipped().iter().filter(|(name, _)| name.starts_with("kustomize")) {
        let labels = &one(resources, "Namespace")["metadata"]["labels"];
        assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted", "{name}");
    }
}

#[test]
fn labels_ports_and_the_network_policy_belong_together() {
    for (name, resources) in shipped() {
        let pod = &one(resources, "StatefulSet")["spec"]["template"];
        let (labels, port) = (&pod["metadata"]["labels"], &pod["spec"]["containers"][0]["ports"][0]);
        assert_eq!((&port["name"], &port["containerPort"]), (&json!("metrics"), &json!(9644)), "{name}");
        let service = one(resources, "Service");
        assert!(is_part(&service["spec"]["selector"], labels), "{name}");
        assert_eq!(service["spec"]["ports"][0]["targetPort"], "metrics", "{name}");
        assert_eq!(one(resources, "StatefulSet")["spec"]["serviceName"], service["metadata"]["name"], "{name}");
        let policy = &one(resources, "NetworkPolicy")["spec"];
        assert!(
            is_part(&policy["podSelector"]["matchLabels"], labels) && policy["podSelector"]["matchLabels"].is_object(),
            "{name}"
        );
        assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]), "{name}");
        let ingress = policy["ingress"].as_array().unwrap();
        assert!(ingress.len() == 1 && ingress[0]["ports"][0]["port"] == "metrics" && ingress[0]["from"].is_array(), "{name}");
        for rule in policy["egress"].as_array().unwrap() {
            assert!(rule["to"].is_array() && rule["ports"].is_array(), "{name}: open to everything: {rule}");
        }
        for monitor in of_kind(resources, "ServiceMonitor") {
            assert!(is_part(&monitor["spec"]["selector"]["matchLabels"], &service["metadata"]["labels"]), "{name}");
            assert_eq!(monitor["spec"]["endpoints"][0]["port"], service["spec"]["ports"][0]["name"], "{name}");
            // What the rules take for the job's name.
            let label = monitor["spec"]["jobLabel"].as_str().unwrap();
            assert_eq!(service["metadata"]["labels"][label], "rotad", "{name}");
        }
    }
}

#[test]
fn the_alerts_are_those_of_the_rules_file() {
    let rules = yaml(&repository("deploy/prometheus/rotad.rules.yml"));
    let expected = |runbooks: &str, floor: &str| -> Value {
        let text = rules.to_string().replace("https://rotad.example/docs", runbooks);
        serde_json::from_str(&text.replace("rotad:survival:seconds < 86400", &format!("rotad:survival:seconds < {floor}")))
            .unwrap()
    };
    for overlay in ["kustomize aws", "kustomize replicas", "kustomize vault"] {
        assert_eq!(one(&shipped()[overlay], "PrometheusRule")["spec"], rules, "{overlay}");
    }
    let chart = &shipped()["chart aws-values.yaml"];
    let changed = expected("https://wiki.example/rotad", "3600");
    assert_ne!(changed, rules);
    assert_eq!(one(chart, "PrometheusRule")["spec"], changed);
    assert_eq!(one(chart, "PrometheusRule")["metadata"]["labels"]["release"], "prometheus");
    let dashboards = of_kind(chart, "ConfigMap").into_iter().filter_map(|map| map["data"]["rotad.json"].as_str());
    let dashboards: Vec<Value> = dashboards.map(|text| serde_json::from_str(text).unwrap()).collect();
    let shipped: Value = serde_json::from_str(&super::tools::text("deploy/grafana/rotad.json")).unwrap();
    assert_eq!(dashboards, [shipped]);
}

#[test]
fn what_is_made_from_something_else_is_up_to_date() {
    said(Command::new("python3").arg("-B").arg(repository("deploy/generate")).arg("--check"));
}

#[test]
fn every_configuration_that_is_shipped_passes_the_program_s_own_check() {
    for (name, resources) in shipped() {
        let maps = of_kind(resources, "ConfigMap");
        let configuration = maps.iter().find_map(|map| map["data"]["rotad.toml"].as_str()).unwrap();
        assert!(configuration.contains("metrics_listen = \"0.0.0.0:9644\""), "{name}: the probes would find nothing");
        let directory = tempfile::tempdir().unwrap();
        // The paths of the pod, in a directory of the test.
        let place = |path: &str| directory.path().join(path.trim_start_matches('/')).display().to_string();
        let pod = &one(resources, "StatefulSet")["spec"]["template"]["spec"];
        let mut local = configuration.to_owned();
        for mount in pod["containers"][0]["volumeMounts"].as_array().unwrap() {
            let path = mount["mountPath"].as_str().unwrap();
            std::fs::create_dir_all(place(path)).unwrap();
            local = local.replace(&format!("\"{path}/"), &format!("\"{}/", place(path)));
        }
        for secret in ["/run/secrets/rotad/admin-token", "/run/secrets/rotad/journal-password", "/run/secrets/vault/token"] {
            let path = place(secret);
            if Path::new(&path).parent().unwrap().exists() {
                std::fs::write(&path, "eyJhbGciOiJIUzUxMiJ9.e30.test").unwrap();
                std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
            }
        }
        assert!(!local.contains("\"/run/secrets"), "{name}: a secret that nothing mounts:\n{local}");
        std::fs::write(directory.path().join("rotad.toml"), local).unwrap();
        let mut check = Command::new(env!("CARGO_BIN_EXE_rotad"));
        let told = said(check.args(["check", "--config"]).arg(directory.path().join("rotad.toml")));
        assert!(!told.contains("warning:"), "{name}: {told}");
    }
}

#[test]
fn images_are_of_this_version() {
    for (name, resources) in shipped().iter().filter(|(name, _)| !name.contains("aws-values")) {
        let image = &one(resources, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]["image"];
        assert_eq!(image, concat!("rotad:", env!("CARGO_PKG_VERSION")), "{name}");
    }
    let chart = yaml(&repository("deploy/kubernetes/chart/Chart.yaml"));
    assert_eq!((&chart["version"], &chart["appVersion"]), (&json!(env!("CARGO_PKG_VERSION")), &json!(env!("CARGO_PKG_VERSION"))));
    let aws = &one(&shipped()["chart aws-values.yaml"], "StatefulSet")["spec"]["template"]["spec"]["containers"][0]["image"];
    assert!(aws.as_str().unwrap().starts_with("registry.example/rotad@sha256:0123"), "{aws}");
}

/// What the chart says to values that are the small ones with this added.
fn refusal(added: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let values = directory.path().join("values.yaml");
    let small = super::tools::text("deploy/kubernetes/chart/ci/small-values.yaml");
    std::fs::write(&values, format!("{small}\n{added}\n")).unwrap();
    let output = render(&[&repository("deploy/kubernetes/chart"), &values]);
    assert!(!output.status.success(), "`{added}` was taken");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_chart_refuses_what_it_can_t_do_and_what_it_does_not_know() {
    for (added, told) in [
        ("replicas: 3", "standby = true"),
        ("replicas: 0", "replicas"),
        ("monitoring: { enabeld: true }", "enabeld"),
        ("journal: { accessModes: [ReadWriteMany] }", "accessModes"),
        ("image: { digest: latest }", "digest"),
        ("config: ''", "config"),
    ] {
        let said = refusal(added);
        assert!(said.contains(told), "{added}: {said}");
    }
    // A key that Kubernetes does not know is told by the schemas.
    let said = refusal("volumeMounts: [{ name: run, mountPath: /x, readonly: true }]");
    assert!(said.contains("readonly"), "{said}");
}
