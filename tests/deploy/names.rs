//! Every series that a rule or a panel names is one that the program exports, with labels that it has.

use std::collections::BTreeSet;

use rotad::metrics::catalogue::{self, Definition, Kind};
use serde_json::Value;

use super::tools::{repository, text, yaml};

/// Labels that Prometheus and the rules add.
const ADDED: [&str; 3] = ["job", "instance", "le"];

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || "_:".contains(character)
}

/// The family of a series' name: a histogram has three series.
fn family(series: &str) -> Option<&'static Definition> {
    let exported = |definition: &&Definition| match definition.kind {
        Kind::Histogram => ["_bucket", "_sum", "_count"].iter().any(|end| series.strip_suffix(end) == Some(definition.name)),
        Kind::Counter | Kind::Gauge => series == definition.name,
    };
    catalogue::ALL.iter().find(exported)
}

/// Each of rotad's series that a query names, with the labels that it is selected by.
fn selected(query: &str) -> Vec<(String, BTreeSet<String>)> {
    let starts =
        query.match_indices("rotad").filter(|(at, _)| !query[..*at].ends_with(|c: char| is_name(c) || "\"-/".contains(c)));
    let series = starts.map(|(at, _)| {
        let name: String = query[at..].chars().take_while(|character| is_name(*character)).collect();
        let rest =
            query[at + name.len()..].strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inside, _)| inside);
        let labels = rest.split(',').filter_map(|matcher| matcher.split(['=', '!']).next()).map(str::trim);
        (name, labels.filter(|label| !label.is_empty()).map(str::to_owned).collect())
    });
    series.filter(|(name, _)| name.contains(['_', ':'])).collect()
}

/// What is wrong with a query's names; `recorded` are the rules' own.
fn unknown(query: &str, recorded: &BTreeSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, labels) in selected(query) {
        if recorded.contains(&name) {
            continue;
        }
        let Some(definition) = family(&name) else {
            wrong.push(format!("`{name}`"));
            continue;
        };
        let known = |label: &&String| definition.labels.contains(&label.as_str()) || ADDED.contains(&label.as_str());
        wrong.extend(labels.iter().filter(|label| !known(label)).map(|label| format!("`{label}` of `{name}`")));
    }
    wrong
}

/// Every rule of the shipped file.
pub fn rules() -> Vec<Value> {
    let file = yaml(&repository("deploy/prometheus/rotad.rules.yml"));
    let groups = file["groups"].as_array().unwrap().clone();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

pub fn recorded() -> BTreeSet<String> {
    rules().iter().filter_map(|rule| rule["record"].as_str().map(str::to_owned)).collect()
}

/// Every query of the shipped dashboard, with the title of its panel.
pub fn panels() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&text("deploy/grafana/rotad.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().clone();
    let query = |panel: &Value, target: &Value| {
        (panel["title"].as_str().unwrap().to_owned(), target["expr"].as_str().unwrap().to_owned())
    };
    let targets = |panel: &Value| panel["targets"].as_array().cloned().unwrap_or_default();
    panels.iter().flat_map(|panel| targets(panel).iter().map(|target| query(panel, target)).collect::<Vec<_>>()).collect()
}

#[test]
fn every_series_of_a_rule_or_a_panel_is_exported() {
    let recorded = recorded();
    let rules = rules();
    let of_rules = rules.iter().map(|rule| rule["expr"].as_str().unwrap().to_owned());
    let queries: Vec<String> = of_rules.chain(panels().into_iter().map(|(_, query)| query)).collect();
    assert!(queries.len() > 30, "{} queries", queries.len());
    let wrong: Vec<String> = queries.iter().flat_map(|query| unknown(query, &recorded)).collect();
    assert!(wrong.is_empty(), "not exported: {}", wrong.join(", "));
    let named: BTreeSet<String> = queries.iter().flat_map(|query| selected(query)).map(|(name, _)| name).collect();
    assert!(named.len() > 25, "only these were found: {named:?}");
}

#[test]
fn a_series_or_a_label_that_is_not_exported_would_be_told() {
    let recorded = BTreeSet::from(["rotad:survival:seconds".to_owned()]);
    let found = |query| unknown(query, &recorded);
    assert_eq!(found("sum by (sink) (rate(rotad_deliveries_total{outcome!=\"confirmed\", job=\"rotad\"}[5m]))"), [""; 0]);
    assert_eq!(found("rotad:survival:seconds < rotad_schedule_lag_seconds_bucket{le=\"1\"}"), [""; 0]);
    assert_eq!(
        found("rotad_orphans_total > rotad_schedule_lag_seconds"),
        ["`rotad_orphans_total`", "`rotad_schedule_lag_seconds`"]
    );
    assert_eq!(found("rotad_blocked{kind=\"x\"}"), ["`kind` of `rotad_blocked`"]);
    assert_eq!(found("rotad:survival:days"), ["`rotad:survival:days`"]);
}
