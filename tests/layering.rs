//! The direction of dependencies between the modules of the program, and the purity of its core.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The modules from the ground up. One may use those of earlier tiers, and those of its own tier
/// as long as no circle comes of it.
const TIERS: &[&[&str]] = &[
    &["rotation"],
    &["cause", "secret", "clock", "hardening", "json", "fail_point", "http", "identities", "notify", "postgres"],
    &["journal", "motherduck", "sinks", "config"],
    &["snapshot", "metrics", "logging", "engine"],
    &["web", "control", "fleet", "otlp", "webhook"],
    &["daemon"],
    &["cli"],
    &["main"],
];

/// The packages that the core may use: data, time, errors, ids, hashes and schedules (`cron` speaks in
/// `chrono`'s types, whose clock the manifest leaves out).
const CORE_PACKAGES: &[&str] = &["serde", "jiff", "thiserror", "uuid", "sha2", "cron", "chrono"];

/// What the core must not touch of the standard library: files, network, environment, clocks, threads.
const CORE_FORBIDDEN: &[&str] = &[
    "std::fs",
    "std::io",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "SystemTime",
    "Instant::now",
    "async fn",
    ".await",
];

/// The code of each module: tests and comments left out.
type Sources = BTreeMap<String, String>;

fn tier(module: &str) -> Option<usize> {
    TIERS.iter().position(|tier| tier.contains(&module))
}

/// The words that follow `prefix` in `code`: `prefix::word`, and each of `prefix::{word, word}`.
fn named_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let word = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let starts =
        code.match_indices(prefix).filter(|(at, _)| !code[..*at].ends_with(|c: char| c.is_alphanumeric() || "_:".contains(c)));
    starts
        .flat_map(|(at, _)| {
            let rest = &code[at + prefix.len()..];
            let group = rest.strip_prefix('{').and_then(|rest| rest.split_once("};")).map(|(group, _)| group);
            group.unwrap_or(rest.split([',', ';']).next().unwrap_or_default()).split(',').map(word).collect::<Vec<_>>()
        })
        .filter(|word| !word.is_empty())
        .collect()
}

fn violations(sources: &Sources, packages: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let mut uses: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (module, code) in sources {
        let used = ["crate::", "rotad::"].iter().flat_map(|root| named_after(code, root));
        // A constant or macro of the crate's root is no module.
        let used = used.filter(|used| used != module && (tier(used).is_some() || sources.contains_key(used)));
        uses.insert(module, used.collect());
    }
    for (module, used) in &uses {
        let Some(own) = tier(module) else {
            found.push(format!("`{module}` has no tier in this test"));
            continue;
        };
        found.extend(
            used.iter().filter(|used| tier(used).is_none_or(|tier| tier > own)).map(|up| format!("`{module}` uses `{up}`")),
        );
        let mut reached: BTreeSet<&str> = BTreeSet::new();
        let mut open: Vec<&str> = used.iter().map(String::as_str).collect();
        while let Some(next) = open.pop() {
            if reached.insert(next) {
                open.extend(uses.get(next).into_iter().flatten().map(String::as_str));
            }
        }
        if reached.contains(module) {
            found.push(format!("`{module}` uses itself in a circle"));
        }
    }
    let core = sources.get("rotation").map_or("", String::as_str);
    let impure =
        packages.iter().filter(|package| !CORE_PACKAGES.contains(&package.as_str())).map(|package| format!("{package}::"));
    let impure = impure.filter(|path| !named_after(core, path).is_empty());
    let forbidden = CORE_FORBIDDEN.iter().filter(|text| core.contains(**text)).map(|text| (*text).to_owned());
    found.extend(impure.chain(forbidden).map(|what| format!("the core uses `{what}`")));
    found
}

/// The code of a file without its tests and comments. `super::` in a file at the top means the crate's root.
fn code(path: &Path, at_top: bool) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
    let code: String = code.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    if at_top { code.replace("super::", "crate::") } else { code }
}

fn collect(folder: &Path, module: Option<&str>, sources: &mut Sources) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            collect(&path, Some(module.unwrap_or(&stem)), sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") && stem != "lib" && stem != "tests" {
            let depth_is_top =
                module.is_none() || (stem == "mod" && folder.parent().is_some_and(|parent| parent.ends_with("src")));
            sources.entry(module.unwrap_or(&stem).to_owned()).or_default().push_str(&code(&path, depth_is_top));
        }
    }
}

fn packages() -> Vec<String> {
    let manifest: toml::Table =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap().parse().unwrap();
    let names = manifest["dependencies"].as_table().unwrap().keys();
    names.map(|name| name.replace('-', "_")).collect()
}

#[test]
fn dependencies_point_down_without_a_circle_and_the_core_is_pure() {
    let mut sources = Sources::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), None, &mut sources);
    assert!(sources.len() > 8 && sources.contains_key("rotation"), "the sources were not found");
    assert_eq!(violations(&sources, &packages()), Vec::<String>::new());
}

#[test]
fn each_kind_of_violation_is_noticed() {
    let found = |module: &str, code: &str| {
        let others =
            [("journal", "use crate::rotation::Entry;"), ("engine", "use crate::{\n    journal::Journal,\n    web,\n};")];
        let others = others.iter().filter(|(name, _)| module == "circle" || *name != "engine");
        let mut sources: Sources = others.map(|(name, code)| ((*name).to_owned(), (*code).to_owned())).collect();
        sources.insert(module.to_owned(), code.to_owned());
        violations(&sources, &["tokio".to_owned(), "serde".to_owned(), "serde_json".to_owned()])
    };
    assert_eq!(found("web", "use crate::journal::Journal;"), Vec::<String>::new());
    assert_eq!(found("journal", "fn f() { crate::engine::run() }"), ["`journal` uses `engine`"]);
    assert_eq!(found("unheard_of", ""), ["`unheard_of` has no tier in this test"]);
    assert!(found("circle", "").contains(&"`engine` uses `web`".to_owned()));
    assert_eq!(found("rotation", "use serde::Serialize; tokio::spawn(f)"), ["the core uses `tokio::`"]);
    assert_eq!(found("rotation", "use serde_json::{Value, Map};"), ["the core uses `serde_json::`"]);
    assert_eq!(found("rotation", "let now = std::time::SystemTime::now();"), ["the core uses `SystemTime`"]);
    assert_eq!(
        found("rotation", "use crate::journal::Row;"),
        ["`journal` uses itself in a circle", "`rotation` uses `journal`", "`rotation` uses itself in a circle"]
    );
}
