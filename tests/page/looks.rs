//! The pages as people use them: by eye, by keyboard, by screen reader; wide and narrow, by day and by night.
//! The pictures are left in `target/page-screenshots`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::plain::{FAST, Plain, SLOW};
use crate::process::Process;

/// A fleet with something in every part of the page: one that rotates, one that is blocked, one whose place can't be written.
fn fleet() -> (Plain, Process) {
    let plain = Plain::start();
    let missing = plain.credential("web", SLOW).replace("sinks/web", "sinks/missing/web");
    plain.configure(&(plain.head() + &plain.credential("etl", FAST) + &plain.credential("odd", SLOW) + &missing));
    plain.put("odd", "planted-by-hand");
    let rotad = plain.rotad_delivering(&["etl"]);
    plain.until("the block", || plain.line("odd")["blocked"] == "take_over_needed");
    plain.until("the trouble", || plain.line("web")["deliveries_failing"] == 1);
    (plain, rotad)
}

fn pictures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/page-screenshots")
}

/// Texts whose contrast to what is behind them is below what WCAG's level AA asks for.
const FAINT: &str = r#"(() => {
    const channels = (color) => (color.match(/[\d.]+/g) || []).map(Number);
    const light = (color) => {
        const [r, g, b] = channels(color).map((c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const color = getComputedStyle(at).backgroundColor;
            if (channels(color)[3] !== 0) return color;
        }
        return "rgb(255, 255, 255)";
    };
    const faint = [];
    for (const element of document.querySelectorAll("body *")) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        if (!own || !element.getClientRects().length || ["title", "desc", "OPTION"].includes(element.tagName)) continue;
        const style = getComputedStyle(element);
        const color = element instanceof SVGElement ? style.fill : style.color;
        const [one, two] = [light(color), light(ground(element))].sort((a, b) => b - a);
        const ratio = (one + 0.05) / (two + 0.05);
        if (ratio < 4.5) faint.push(element.tagName + "." + element.getAttribute("class") + " " + ratio.toFixed(2) + " " + element.textContent.slice(0, 40));
    }
    return faint;
})()"#;

#[test]
fn every_page_is_readable_wide_and_narrow_by_day_and_by_night() {
    let (plain, mut rotad) = fleet();
    plain.until("two revocations", || plain.revoked() >= 2);
    let folder = tempfile::tempdir().unwrap();
    let mut browser = Browser::start(folder.path());
    for (page, path) in [
        ("fleet", "/"),
        ("credential", "/credential/etl"),
        ("trouble", "/credential/web"),
        ("history", "/credential/etl/history"),
    ] {
        for (size, width) in [("wide", 1280), ("narrow", 360)] {
            for (light, dark) in [("light", false), ("dark", true)] {
                browser.look_as(width, dark);
                browser.open(&(plain.address() + path));
                let picture = pictures().join(format!("{page}-{size}-{light}.png"));
                browser.screenshot(&picture);
                let shown = std::fs::read(&picture).unwrap();
                assert_eq!(
                    (&shown[1..4], u32::from_be_bytes(shown[16..20].try_into().unwrap())),
                    (&b"PNG"[..], width),
                    "{page} {size}"
                );
                assert_eq!(
                    browser.ask("document.documentElement.scrollWidth <= innerWidth"),
                    json!(true),
                    "{page} {size} is wider than the screen"
                );
                assert_eq!(browser.ask(FAINT), json!([]), "{page} {size} {light}");
                let ground = browser.ask("getComputedStyle(document.body).backgroundColor");
                let light_ground = ground.as_str().unwrap().contains("251");
                assert_eq!(light_ground, !dark, "{page} {light}: {ground}");
            }
        }
    }
    asked_for_nothing_elsewhere(&browser, &plain.address());
    rotad.stop();
}

/// Every request went to the page's own address, and the browser had nothing to complain of.
fn asked_for_nothing_elsewhere(browser: &Browser, address: &str) {
    let requests = browser.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
    let urls: Vec<&str> = requests.filter_map(|event| event["params"]["request"]["url"].as_str()).collect();
    assert!(urls.iter().any(|url| url.ends_with("/style.css")), "{urls:?}");
    let elsewhere: Vec<_> = urls.iter().filter(|url| !url.starts_with(address)).collect();
    assert_eq!(elsewhere, [&""; 0]);
    let complaints: Vec<&Value> = browser.events.iter().filter(|event| event["method"] == "Log.entryAdded").collect();
    assert_eq!(complaints, [&Value::Null; 0], "such as a violation of the content security policy");
}

const FOCUSED: &str = "(() => { const at = document.activeElement; const style = getComputedStyle(at); \
    return { tag: at.tagName, told: (at.textContent || at.name || '').trim(), outlined: style.outlineStyle !== 'none', \
    href: at.getAttribute('href') || '', label: at.getAttribute('aria-label') || '' }; })()";

#[test]
fn everything_is_reached_by_keyboard_without_a_script() {
    let (plain, mut rotad) = fleet();
    let folder = tempfile::tempdir().unwrap();
    let mut browser = Browser::start(folder.path());
    browser.call("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    browser.open(&plain.address());
    browser.press("Tab", false);
    assert_eq!(browser.ask(FOCUSED)["told"], "Skip to the content");
    let wanted =
        browser.ask("document.querySelectorAll('a[href], input, select, button, [tabindex=\"0\"]').length").as_u64().unwrap();
    let mut reached = Vec::new();
    for _ in 0..wanted {
        let focused = browser.ask(FOCUSED);
        assert_eq!(focused["outlined"], true, "where the keyboard is can't be seen: {focused}");
        reached.push(focused);
        browser.press("Tab", false);
    }
    let has = |what: &dyn Fn(&Value) -> bool| reached.iter().any(what);
    assert!(has(&|at| at["href"] == "/credential/odd") && has(&|at| at["label"] == "Credentials, a table"), "{reached:?}");
    assert!(has(&|at| at["tag"] == "BUTTON") && has(&|at| at["tag"] == "SELECT"), "{reached:?}");
    // The search is a form as browsers know it.
    browser.ask("document.querySelector('input[name=q]').focus()");
    browser.call("Input.insertText", json!({ "text": "WE" }));
    browser.events.clear();
    browser.press("Enter", true);
    let address = browser.ask("location.href");
    assert!(address.as_str().unwrap().contains("/?q=WE&show=all&sort=need"), "{address}");
    let names = browser.ask("[...document.querySelectorAll('#credentials ~ .wide tbody th')].map((th) => th.textContent)");
    assert_eq!(names, json!(["web"]));
    browser.ask("document.querySelector('#credentials ~ .wide tbody a').focus()");
    browser.events.clear();
    browser.press("Enter", true);
    assert_eq!(browser.ask("location.pathname + ' ' + document.querySelector('h1').textContent"), "/credential/web web new");
    rotad.stop();
}

/// The accessibility tree's nodes, as role and name.
fn told(browser: &mut Browser) -> Vec<(String, String)> {
    let tree = browser.call("Accessibility.getFullAXTree", json!({}));
    let text = |node: &Value, key: &str| node[key]["value"].as_str().unwrap_or_default().to_owned();
    let nodes = tree["nodes"].as_array().unwrap().iter().filter(|node| node["ignored"] == false);
    nodes.map(|node| (text(node, "role"), text(node, "name"))).collect()
}

#[test]
fn a_screen_reader_is_told_what_the_page_is_and_what_the_picture_shows() {
    let (plain, mut rotad) = fleet();
    let folder = tempfile::tempdir().unwrap();
    let mut browser = Browser::start(folder.path());
    browser.call("Accessibility.enable", json!({}));
    browser.open(&plain.address());
    let fleet = told(&mut browser);
    let has = |tree: &[(String, String)], role: &str, name: &str| tree.contains(&(role.to_owned(), name.to_owned()));
    for (role, name) in [
        ("RootWebArea", "Fleet · rotad test"),
        ("main", ""),
        ("navigation", "Credentials by state"),
        ("heading", "What needs a person"),
        ("search", ""),
        ("searchbox", "Name, account or label contains"),
        ("combobox", "Show"),
        ("columnheader", "Next token"),
        ("rowheader", "etl"),
        ("link", "odd"),
    ] {
        assert!(has(&fleet, role, name), "{role} `{name}` is not in {fleet:?}");
    }
    assert!(
        fleet
            .iter()
            .all(|(role, name)| !["link", "button", "searchbox", "combobox"].contains(&role.as_str()) || !name.is_empty())
    );
    browser.open(&(plain.address() + "/credential/etl"));
    let page = told(&mut browser);
    assert!(page.iter().any(|(role, name)| ["image", "img"].contains(&role.as_str()) && name == "The tokens' lives"), "{page:?}");
    assert!(has(&page, "table", "Tokens, newest first") && has(&page, "columnheader", "Superseded"), "{page:?}");
    let description = browser.ask("document.getElementById('timeline-description').textContent");
    assert!(description.as_str().unwrap().contains("1 current"), "{description}");
    assert_eq!(browser.ask("document.documentElement.lang"), "en");
    rotad.stop();
}
