//! The real thing: rotad, Prometheus with the shipped rules and Alertmanager. Something is broken, and
//! the right alert arrives, and no other.
//!
//! The shipped files are used with these changes alone, so that a test need not wait for hours: every
//! `for:` and every group's wait is seconds, rates look back for seconds, and addresses are the test's own.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::bench::{Bench, PATIENCE};
use super::names::panels;
use super::process::Process;
use super::proxy::Manner;
use super::tools::{repository, text, unpacked};

/// What every `for:` is here: longer than a rotation leaves its deliveries unconfirmed.
const FOR: &str = "for: 10s";
/// What rates look back over here: as many scrapes as three are in the shipped quarter of an hour, and some.
const LOOK_BACK: &str = "[20s]";
/// For how long nothing else may arrive beside an alert.
const STILL: u32 = 5;

/// Prometheus and Alertmanager, watching one rotad.
struct Watchers {
    prometheus: String,
    alertmanager: String,
    _processes: [Process; 2],
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// The rules with every wait shortened.
fn shortened_rules() -> String {
    let lines = text("deploy/prometheus/rotad.rules.yml");
    let shortened = lines.lines().map(|line| match line.trim_start().strip_prefix("for: ") {
        Some(_) => line.split("for: ").next().unwrap().to_owned() + FOR + "\n",
        None => line.replace("[15m]", LOOK_BACK) + "\n",
    });
    shortened.collect()
}

/// Debian's Alertmanager reads its templates from here and nowhere else.
const TEMPLATES: &str = "/usr/share/prometheus/alertmanager";

/// The program, which sees the unpacked templates in their place if they are not installed: in a mount
/// namespace of its own, so that nothing is left on the machine.
fn alertmanager() -> Command {
    let program = unpacked("prometheus-alertmanager");
    let templates = repository("target/test-tools/alertmanager");
    if Path::new(TEMPLATES).exists() || !templates.exists() {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let shown =
        "mount -t tmpfs none /usr/share && mkdir /usr/share/prometheus && ln -s \"$0\" /usr/share/prometheus/ && exec \"$@\"";
    command.args(["--mount", "sh", "-c", shown]).arg(templates).arg(program);
    command
}

fn launch(directory: &Path, name: &str, mut command: Command, arguments: &[String]) -> Process {
    let log = std::fs::File::create(directory.join(format!("{name}.log"))).unwrap();
    command.args(arguments).current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Process(command.spawn().unwrap_or_else(|error| panic!("`{name}` can't be run ({error}); `tests/run` gets it")))
}

impl Watchers {
    fn start(directory: &Path, rotad: &str) -> Self {
        let [prometheus, alertmanager] = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
        let scrape = text("deploy/prometheus/prometheus.yml").replace("interval: 30s", "interval: 1s");
        let scrape = scrape.replace("127.0.0.1:9643", rotad).replace("127.0.0.1:9093", &alertmanager);
        std::fs::write(directory.join("prometheus.yml"), scrape).unwrap();
        std::fs::write(directory.join("rotad.rules.yml"), shortened_rules()).unwrap();
        let routes = text("deploy/prometheus/alertmanager.yml").replace("group_wait: 30s", "group_wait: 1s");
        std::fs::write(directory.join("alertmanager.yml"), routes).unwrap();
        let listen = |address: &str| format!("--web.listen-address={address}");
        let for_alertmanager = ["--config.file=alertmanager.yml", "--storage.path=alertmanager", "--cluster.listen-address="];
        let for_prometheus = ["--config.file=prometheus.yml", "--storage.tsdb.path=prometheus"];
        let owned = |arguments: &[&str], address: &str| {
            arguments.iter().map(|argument| (*argument).to_owned()).chain([listen(address)]).collect::<Vec<_>>()
        };
        let processes = [
            launch(directory, "alertmanager", self::alertmanager(), &owned(&for_alertmanager, &alertmanager)),
            launch(directory, "prometheus", Command::new(unpacked("prometheus")), &owned(&for_prometheus, &prometheus)),
        ];
        Self { prometheus, alertmanager, _processes: processes }
    }

    /// The answer's JSON; `None` while there is no good one.
    async fn get(&self, http: &reqwest::Client, url: String) -> Option<Value> {
        let response = http.get(url).send().await.ok()?;
        let fine = response.status().is_success();
        let body = response.text().await.ok()?;
        assert!(fine || !body.contains("bad_data"), "{body}");
        serde_json::from_str(&body).ok().filter(|_| fine)
    }

    /// Waits until both answer.
    async fn are_ready(&self, http: &reqwest::Client, directory: &Path) {
        for address in [&self.prometheus, &self.alertmanager] {
            let mut ready = false;
            for _ in 0..PATIENCE.as_secs() * 10 {
                ready =
                    http.get(format!("http://{address}/-/ready")).send().await.is_ok_and(|answer| answer.status().is_success());
                if ready {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let log = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap_or_default();
            assert!(ready, "no answer from {address}:\n{}\n{}", log("prometheus.log"), log("alertmanager.log"));
        }
    }

    /// The alerts that Alertmanager has, inhibited ones left out.
    async fn alerts(&self, http: &reqwest::Client) -> Vec<Value> {
        let url = format!("http://{}/api/v2/alerts?active=true&inhibited=false", self.alertmanager);
        let alerts = self.get(http, url).await.expect("Alertmanager answers");
        alerts.as_array().unwrap().clone()
    }

    /// How many series a query gives.
    async fn series(&self, http: &reqwest::Client, query: &str) -> usize {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.get(http, format!("http://{}/api/v1/query?query={encoded}", self.prometheus)).await;
        answer.and_then(|answer| Some(answer["data"]["result"].as_array()?.len())).unwrap_or(0)
    }
}

fn names(alerts: &[Value]) -> BTreeSet<&str> {
    alerts.iter().map(|alert| alert["labels"]["alertname"].as_str().unwrap()).collect()
}

struct Scene {
    bench: Bench,
    watchers: Watchers,
}

impl Scene {
    /// A rotad that rotates every four seconds, with tokens that live long enough for every alert's taste.
    async fn start() -> (Self, Process) {
        let bench = Bench::start("4s", "2s").await;
        let configuration = bench.configuration("4s", "2s");
        assert!(configuration.contains("ttl = \"2h\""));
        std::fs::write(bench.path("rotad.toml"), configuration.replace("ttl = \"2h\"", "ttl = \"30d\"")).unwrap();
        let rotad = bench.rotad();
        bench.until("the second revocation", || bench.revoked() >= 2).await;
        let log = bench.log_text();
        let address = log.rsplit("address=").next().and_then(|rest| rest.split_whitespace().next()).unwrap();
        let watchers = Watchers::start(bench.directory.path(), address);
        watchers.are_ready(&bench.http, bench.directory.path()).await;
        (Self { bench, watchers }, rotad)
    }

    /// Waits until exactly this alert has arrived, or none; whatever else arrives meanwhile or right after is wrong.
    async fn arrives(&self, expected: Option<&str>, allowed_before: &[&str]) -> Vec<Value> {
        let wanted: BTreeSet<&str> = expected.into_iter().collect();
        let allowed: BTreeSet<&str> = wanted.iter().chain(allowed_before).copied().collect();
        let (mut still, mut last) = (0, Vec::new());
        for _ in 0..PATIENCE.as_secs() {
            last = self.watchers.alerts(&self.bench.http).await;
            let found = names(&last);
            assert!(found.is_subset(&allowed), "{found:?} where {expected:?} is wanted: {last:#?}\n{}", self.bench.log_text());
            still = if found == wanted { still + 1 } else { 0 };
            if still > STILL {
                return last;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("{:?} where {expected:?} is wanted\n{}", names(&last), self.bench.log_text());
    }

    /// This alert, without any other; its text is whole.
    async fn alerts_alone(&self, alert: &str, label: (&str, &str)) {
        for found in self.arrives(Some(alert), &[]).await {
            assert_eq!(found["labels"][label.0], label.1, "{found}");
            for key in ["summary", "description", "runbook_url"] {
                let text = found["annotations"][key].as_str().unwrap_or_default();
                assert!(!text.is_empty() && !text.contains("<no value>") && !text.contains("<error"), "{found}");
            }
        }
    }

    async fn recovers_from(&self, alert: &str) {
        self.arrives(None, &[alert]).await;
    }

    /// Every panel's query gives something.
    async fn panels_show_something(&self) {
        let mut empty = Vec::new();
        for _ in 0..PATIENCE.as_secs() {
            empty.clear();
            for (title, query) in panels() {
                let query = query.replace("$instance", ".*").replace("$__rate_interval", "20s");
                assert!(!query.contains('$'), "a variable that this test does not know: {query}");
                if self.watchers.series(&self.bench.http, &query).await == 0 {
                    empty.push(format!("{title}: {query}"));
                }
            }
            if empty.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("panels without data:\n{}", empty.join("\n"));
    }

    async fn misbehave(&self, operations: &[&str], status: Value) {
        let fault = json!({ "operations": operations, "misbehaviour": { "status": status } });
        self.bench.stand_in_call(reqwest::Method::POST, "faults", Some(fault)).await;
    }

    async fn behave(&self) {
        self.bench.stand_in_call(reqwest::Method::DELETE, "faults", None).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_raises_its_alert_and_no_other() {
    let (scene, mut rotad) = Scene::start().await;
    scene.panels_show_something().await;
    scene.arrives(None, &[]).await;

    scene.bench.bao_proxy.set(Manner::Refuse);
    scene.alerts_alone("RotadDeliveriesFailing", ("sink", "vault")).await;
    scene.bench.bao_proxy.set(Manner::Pass);
    scene.recovers_from("RotadDeliveriesFailing").await;

    scene.misbehave(&["create_token"], json!({ "status": 429, "retry_after": { "seconds": 1 } })).await;
    scene.alerts_alone("RotadApiThrottled", ("severity", "warning")).await;
    scene.behave().await;
    scene.recovers_from("RotadApiThrottled").await;

    scene.misbehave(&["list_tokens"], json!({ "status": 404 })).await;
    scene.alerts_alone("RotadBlocked", ("reason", "no_such_account")).await;

    rotad.kill();
    scene.arrives(Some("RotadAbsent"), &["RotadBlocked"]).await;
    assert_eq!(scene.watchers.alerts(&scene.bench.http).await[0]["labels"]["severity"], "critical");
}
