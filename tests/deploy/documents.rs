//! What the documents say of restoring a journal is so, and what they point at is there.

use std::path::Path;
use std::process::Command;

use super::plain::{FAST, Plain};
use super::tools::{from_pypi, repository, said, text};

/// The journal and what SQLite keeps beside it.
const FILES: [&str; 3] = ["journal.db", "journal.db-wal", "journal.db-shm"];

#[test]
fn a_backup_taken_while_it_runs_can_be_restored_as_the_document_says() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], FAST);
    let mut rotad = plain.rotad_delivering(&["etl"]);
    plain.until("a revocation", || plain.revoked() >= 1);
    // The document's command, by the same library as the `sqlite3` program.
    assert!(text("docs/backup.md").contains("sqlite3 /var/lib/rotad/journal.db \"VACUUM INTO '/var/backups/rotad/journal-"));
    let backup = plain.path("backup.db");
    let journal = rusqlite::Connection::open(plain.path("journal/journal.db")).unwrap();
    journal.execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
    drop(journal);
    let before = plain.revoked();
    plain.until("what the backup does not know", || plain.revoked() >= before + 2);
    rotad.stop();
    let lost = plain.path("journal/lost");
    std::fs::create_dir(&lost).unwrap();
    for name in FILES {
        let _ = std::fs::rename(plain.path("journal").join(name), lost.join(name));
    }
    std::fs::copy(&backup, plain.path("journal/journal.db")).unwrap();
    let before = plain.revoked();
    let mut rotad = plain.rotad();
    plain.until("revocations", || {
        plain.serves_nothing_dead("etl");
        plain.revoked() >= before + 2
    });
    assert!(plain.line("etl")["block"].is_null(), "{}", plain.line("etl"));
    rotad.stop();
    assert!(plain.serves_live("etl"));
}

/// The targets of a document's links to files, with the documents' own sections.
fn links(document: &str) -> Vec<String> {
    let parts = document.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    parts.map(|(target, _)| target.to_owned()).filter(|target| !target.contains("://")).collect()
}

/// A heading as links name it.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
}

fn broken_links(path: &str) -> Vec<String> {
    let folder = repository(path).parent().unwrap().to_owned();
    let leads_nowhere = |link: &String| {
        let (file, section) = link.split_once('#').unwrap_or((link, ""));
        let target = if file.is_empty() { repository(path) } else { folder.join(file) };
        let has_section = |target: &Path| {
            let text = std::fs::read_to_string(target).unwrap_or_default();
            text.lines().filter(|line| line.starts_with('#')).any(|heading| anchor(heading) == section)
        };
        !target.exists() || (!section.is_empty() && !has_section(&target))
    };
    links(&text(path)).into_iter().filter(leads_nowhere).map(|link| format!("{path}: {link}")).collect()
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let mut documents =
        ["README.md", "ARCHITECTURE.md", "SECURITY.md", "CHANGELOG.md", "deploy/README.md"].map(str::to_owned).to_vec();
    let folder = std::fs::read_dir(repository("docs")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    documents.extend(folder.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")));
    assert!(documents.len() > 12);
    let broken: Vec<String> = documents.iter().flat_map(|document| broken_links(document)).collect();
    assert_eq!(broken, [""; 0]);
    assert!(documents.iter().map(|document| links(&text(document)).len()).sum::<usize>() > 40, "links are not found");
    assert_eq!(anchor("## Prometheus, Alertmanager, Grafana"), "prometheus-alertmanager-grafana");
}

/// The first block of a language in a section of a document.
pub fn block(document: &str, section: &str, language: &str) -> String {
    let text = text(document);
    let (_, rest) = text.split_once(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("{document} has no `{section}`"));
    let (_, rest) = rest.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_installation_s_configuration_leads_to_the_first_rotation_that_is_described() {
    let plain = Plain::start();
    let directory = plain.path("").display().to_string();
    let configuration = block("docs/install.md", "What you need first", "toml");
    let local = configuration.replace("/var/lib/rotad/", &directory).replace("etl_prod", super::plain::ACCOUNT);
    // What a test adds: its own API, a journal and a port beside those of the machine.
    let api = format!("\napi_url = \"{}\"\n\n[journal]\nurl = \"sqlite:{directory}journal/journal.db\"\n", plain.api());
    let added = api + "\n[server]\nlisten = \"127.0.0.1:0\"\n\n[sink.disk.file]";
    assert_eq!(local.matches("\n[sink.disk.file]").count(), 1);
    plain.configure(&local.replace("\n[sink.disk.file]", &added));
    let told = plain.ask(&["check", "--online"]);
    assert_eq!(told.code, 0, "{told:?}");
    let mut rotad = plain.rotad();
    plain.until("the first rotation", || plain.log().contains("promoted"));
    assert_eq!(plain.live().len(), 1);
    let log = plain.log();
    let steps = "`intended`, `issued`, `verified`, `attempted`, `confirmed`, `promoted`";
    assert!(text("docs/install.md").contains(steps));
    let mut rest = log.as_str();
    for step in steps.split(", ").map(|step| step.trim_matches('`')) {
        rest = rest
            .split_once(&format!(" {step} "))
            .unwrap_or_else(|| panic!("`{step}` is not there, or not there in order:\n{log}"))
            .1;
    }
    // The text of the document, but for the times.
    let lines = |text: &str| -> Vec<Vec<String>> {
        let words = text.lines().map(|line| line.split_whitespace().filter(|word| word.parse::<u64>().is_err()));
        words.map(|words| words.map(str::to_owned).collect()).collect()
    };
    let (shown, described) = (lines(&plain.ask(&["status"]).out), lines(&block("docs/install.md", "The first rotation", "")));
    assert_eq!(shown[..3], described[..3]);
    assert_eq!(shown[3][..2], described[3][..2]);
    rotad.stop();
}

#[test]
fn the_overlay_of_the_document_renders() {
    let directory = tempfile::tempdir().unwrap();
    let to_root = "../".repeat(directory.path().components().count() - 1);
    let root = format!("{to_root}{}", repository("").display().to_string().trim_matches('/'));
    let overlay = block("docs/install.md", "Kubernetes, with kustomize", "yaml").replace("path/to", &root);
    std::fs::write(directory.path().join("kustomization.yaml"), overlay).unwrap();
    std::fs::write(directory.path().join("rotad.toml"), "# of one's own\n").unwrap();
    let rendered = said(Command::new(from_pypi("kubectl")).arg("kustomize").arg(directory.path()));
    for expected in
        ["image: registry.example/rotad:0.1.0", "# of one's own", "kind: PrometheusRule", "eks.amazonaws.com/role-arn"]
    {
        assert!(rendered.contains(expected), "`{expected}` is not in:\n{rendered}");
    }
}
