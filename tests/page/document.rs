//! What the JSON answers is what its OpenAPI document says.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::plain::{FAST, Plain, SLOW};

/// A program from PyPI, installed by `tests/servers/install`.
fn schemathesis() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let servers = std::env::var_os("ROTAD_TEST_SERVERS").map_or_else(|| root.join("target/test-servers"), PathBuf::from);
    servers.join("bin/st")
}

/// Whether schemathesis is content with a document and what is answered, and what it said.
fn held(plain: &Plain, document: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("openapi.json");
    std::fs::write(&file, document).unwrap();
    let mut command = Command::new("timeout");
    command.arg("240").arg(schemathesis()).current_dir(folder.path()).arg("--config-file");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract/page.toml"));
    command.args(["run", file.to_str().unwrap(), "--url", &plain.address(), "--no-color", "--phases", "coverage,fuzzing"]);
    let output = command.stdin(Stdio::null()).output().expect("schemathesis; `tests/servers/install` gets it");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

#[test]
fn real_answers_are_what_the_document_says() {
    let plain = Plain::start();
    plain.configure(&(plain.head() + &plain.credential("etl", FAST) + &plain.credential("odd", SLOW)));
    plain.put("odd", "planted-by-hand");
    let mut rotad = plain.rotad_delivering(&["etl"]);
    plain.until("a revocation and a block", || plain.revoked() >= 1 && plain.line("odd")["blocked"] == "take_over_needed");
    let (status, document) = plain.http("/api/v1/openapi.json");
    assert_eq!(status, 200);
    let (content, said) = held(&plain, &document);
    assert!(content, "{said}");
    // A document that promises something else is found out by the same run.
    let other = document.replace("\"survival_deadline_at\"", "\"survives_until\"");
    assert_ne!(other, document);
    let (content, said) = held(&plain, &other);
    assert!(!content && said.contains("survives_until"), "{said}");
    rotad.stop();
}
