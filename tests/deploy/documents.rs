//! What the documents say of restoring a journal is so, and what they point at is there.

use std::path::Path;

use super::plain::{FAST, Plain};
use super::tools::{repository, text};

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
