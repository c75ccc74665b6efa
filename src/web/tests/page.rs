//! The page as HTTP and text: what it may do, what it tells, and that nothing from outside gets into it as HTML.

use std::collections::BTreeSet;

use super::*;
use crate::journal::{HistoryLine, Identity, Journal, JournalError, Page, Row, Save};
use crate::rotation::{
    Backoff, Block, Blocked, Credential, Delivery, Entry, Failed, Happened, InstallationId, Pause, ProcessId, Reason, Rotation,
    RotationId, Settled, Stage, Token, TokenId, Trouble,
};

const SCRIPT: &str = "<script>alert(1)</script>";

fn name(text: &str) -> CredentialName {
    text.parse().unwrap()
}

fn id(second: i64) -> RotationId {
    RotationId::mint(moment(second).wall, None, InstallationId(1), 0)
}

fn issued(second: i64) -> (RotationId, Rotation) {
    let token = Token {
        id: TokenId(format!("token-of-{second}")),
        created_at: moment(second).wall,
        expires_at: moment(second + 604_800).wall,
        fingerprint: None,
    };
    let rotation = Rotation {
        intended_at: moment(second),
        by: ProcessId(1),
        organization: "main".into(),
        account: Account::new("etl"),
        ttl: SignedDuration::from_hours(168),
        token_type: None,
        stage: Stage::Issued { verified: true },
        token: Some(token),
        adopted: false,
        set_up: false,
        missing_since: None,
        vanished: false,
        attempts: std::collections::BTreeMap::new(),
        revocation_sent: false,
        backoff: Backoff::default(),
    };
    (id(second), rotation)
}

/// One whose older token is in its grace period, and whose place and block speak HTML.
fn troubled() -> Credential {
    let trouble = Trouble {
        since: moment(-60).wall,
        writing: true,
        failed: Failed::new(Reason::Forbidden, format!("{SCRIPT} was refused")),
        backoff: Backoff { failures: 3, until: Some(moment(130).wall) },
    };
    let delivery = Delivery { confirmed: Some(id(-3_600)), trouble: Some(trouble), ..Delivery::default() };
    let mut state = Credential {
        known: true,
        rotations: [issued(-90_000), issued(-3_600)].into(),
        deliveries: [(DeliveryId::new(PLACE), delivery)].into(),
        settled: Some(Settled {
            rotation: id(-3_600),
            since: moment(-3_590),
            grace: SignedDuration::from_hours(12),
            uncompared: false,
            used: false,
        }),
        current: Some(id(-3_600)),
        newest: Some(id(-3_600)),
        blocked: Some(Block { reason: Blocked::RolledBack, since: moment(-600).wall, detail: format!("{SCRIPT} is back") }),
        ..Credential::default()
    };
    let (since, until) = (moment(0).wall, moment(7_300).wall);
    state.orders.paused =
        Some(Pause { since, until, reason: SCRIPT.to_owned(), by: "root (uid 0)".to_owned(), let_expire: false });
    state
}

fn entry(second: i64, what: Happened, rotation: i64) -> Entry {
    let token = Some(TokenId(format!("token-of-{rotation}")));
    let (rotation, delivery) = (Some(id(rotation)), Some(DeliveryId::new(PLACE)).filter(|_| what == Happened::Confirmed));
    let detail = Some(format!("{what:?} {SCRIPT}"));
    Entry { at: moment(second).wall, what, rotation, token, delivery, reason: None, detail, by: Some(SCRIPT.to_owned()) }
}

impl Running {
    /// Records a credential's state and history, and shows it on the board.
    pub async fn record(&self, name: &CredentialName, state: &Credential, entries: Vec<Entry>) {
        let json = serde_json::to_string(state).unwrap();
        let (credential, wake_at) = (name.clone(), moment(610).wall);
        let save = Save { credential, expected: None, state: json, wake_at, entries, takes_over: None };
        self.journal.save(save).await.unwrap();
        let member = Everybody.member(name).unwrap();
        let organization = self.board.organization("main");
        self.board.put(name, crate::engine::summarize(state, &member.policy, organization, moment(10).wall));
    }

    async fn with_trouble(&self) {
        let entries = vec![
            entry(-200_000, Happened::Intended, -200_000),
            entry(-199_990, Happened::Promoted, -200_000),
            entry(-90_000, Happened::Intended, -90_000),
            entry(-89_980, Happened::Confirmed, -90_000),
            entry(-89_970, Happened::Promoted, -90_000),
            entry(-45_000, Happened::Revoked, -200_000),
            entry(-3_600, Happened::Intended, -3_600),
            entry(-3_595, Happened::Confirmed, -3_600),
            entry(-3_590, Happened::Promoted, -3_600),
            entry(-60, Happened::WriteRefused, -3_600),
        ];
        self.record(&name("etl"), &troubled(), entries).await;
    }
}

const PAGES: [&str; 7] = [
    "/",
    "/?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E",
    "/?show=attention&sort=expiry&page=2",
    "/credential/etl",
    "/credential/etl/history",
    "/credential/new",
    "/credential/xenia",
];

#[tokio::test]
async fn no_page_runs_anything_or_asks_for_anything_elsewhere() {
    let server = running(options()).await;
    server.with_trouble().await;
    for path in PAGES {
        let response = client().get(server.url(0, path)).send().await.unwrap();
        let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe") && !policy.contains("script-src"));
        for directive in ["style-src 'self'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"] {
            assert!(policy.contains(directive), "{policy}");
        }
        assert_eq!(response.headers()["referrer-policy"], "no-referrer");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()[TYPE], "text/html; charset=utf-8");
        let page = response.text().await.unwrap().to_lowercase();
        for forbidden in ["<script", "<img", " style=", "javascript:", "<iframe", "<base", "http-equiv", "method=\"post\"", "eyj"]
        {
            assert!(!page.contains(forbidden), "{path}: `{forbidden}`\n{page}");
        }
        for reference in page.split(" href=\"").chain(page.split(" src=\"")).chain(page.split(" action=\"")).skip(1) {
            let fine = reference.starts_with('/') && !reference.starts_with("//") || reference.starts_with('#');
            assert!(fine || reference.starts_with("<!doctype"), "{path}: {}", &reference[..40]);
        }
    }
}

#[tokio::test]
async fn what_others_wrote_is_shown_as_text() {
    let server = running(options()).await;
    server.with_trouble().await;
    let escaped = "&lt;script&gt;alert(1)&lt;/script&gt;";
    let (_, fleet) = server.get(0, "/?q=%22%3E%3Cscript%3E").await;
    assert!(fleet.contains("value=\"&quot;&gt;&lt;script&gt;\""), "{fleet}");
    for told in ["was refused", "is back"] {
        assert!(fleet.contains(&format!("{escaped} {told}")), "{told}: {fleet}");
    }
    let (_, page) = server.get(0, "/credential/etl").await;
    assert!(page.contains("file:/run/&lt;img src=x onerror=alert(1)&gt;&amp;&quot;'/token"), "{page}");
    assert!(page.contains("etl_&lt;b&gt;") && page.contains(&format!("by {escaped}")), "{page}");
    let (_, history) = server.get(0, "/credential/etl/history").await;
    assert_eq!(history.matches(&format!("{escaped} by {escaped}")).count(), 10, "{history}");
}

/// What is between two texts.
fn between<'t>(text: &'t str, from: &str, to: &str) -> &'t str {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("`{from}` is not in:\n{text}"));
    rest.split_once(to).unwrap_or_else(|| panic!("`{to}` does not follow in:\n{rest}")).0
}

#[tokio::test]
async fn the_first_page_tells_what_needs_a_person_with_reason_and_remedy() {
    let server = running(options()).await;
    assert!(server.get(0, "/").await.1.contains("Nothing has been delivered yet."));
    server.with_trouble().await;
    server.board.put(&name("calm"), Summary { state: CredentialState::New, ..Summary::new(server.board.organization("main")) });
    let (_, page) = server.get(0, "/").await;
    assert!(page.contains("every consumer would keep working for <strong>6 d</strong>"), "{page}");
    assert!(page.contains(" 1 credential waits for a first token."), "{page}");
    let needs = between(&page, "What needs a person</h2>", "</section>");
    for told in [
        "is back",
        "`rotad resume` overwrites it now",
        "was refused",
        "grant the permission",
        "writes the same token again",
        "in 2 min",
    ] {
        assert!(needs.contains(told), "`{told}` is not in:\n{needs}");
    }
    assert!(needs.find("is back") < needs.find("was refused"), "a block is more pressing than a place that fails:\n{needs}");
    let table = between(&page, "<tbody>", "</tbody>");
    assert!(table.find("etl") < table.find("calm"), "{table}");
    assert!(!page.contains("Nothing does."));
}

#[tokio::test]
async fn a_credential_s_page_has_every_token_place_concern_and_step() {
    let server = running(options()).await;
    server.with_trouble().await;
    let (status, page) = server.get(0, "/credential/etl").await;
    assert_eq!(status, 200);
    for token in ["token-of--200000", "token-of--90000", "token-of--3600"] {
        assert!(between(&page, "Tokens, newest first", "</table>").contains(token), "{token}:\n{page}");
    }
    let tokens = between(&page, "Tokens, newest first", "</table>");
    for told in ["revoked <time", "retiring: still alive", "revoked <time", "in 11 h", "current"] {
        assert!(tokens.contains(told), "`{told}` is not in:\n{tokens}");
    }
    assert!(page.contains("paused by root (uid 0)") && page.contains("in 2 h") && page.contains("serves the newest token"));
    assert_eq!(server.get(0, "/credential/xenia").await.0, 404);
    assert_eq!(server.get(0, "/credential/No-Name").await.0, 404);
    let (status, new) = server.get(0, "/credential/new").await;
    assert_eq!((status, new.contains("No token has been issued yet.")), (200, true));
}

#[tokio::test]
async fn a_token_that_expired_ends_in_the_picture_where_it_expired() {
    let server = running(options()).await;
    let entries = vec![
        entry(-800_000, Happened::Intended, -800_000),
        entry(-799_990, Happened::Promoted, -800_000),
        entry(-195_140, Happened::Expired, -800_000),
        entry(-90_000, Happened::Intended, -90_000),
        entry(-89_970, Happened::Promoted, -90_000),
        entry(-3_600, Happened::Intended, -3_600),
        entry(-3_590, Happened::Promoted, -3_600),
    ];
    server.record(&name("etl"), &troubled(), entries).await;
    let (_, page) = server.get(0, "/credential/etl").await;
    let picture = between(&page, "<svg role=\"img\"", "<figcaption>");
    let row = between(picture, "token-of</text>", "</g>");
    assert!(row.contains(">expired</text>") && !row.contains("class=\"revoked\""), "{row}");
    let diamond = between(row, "<path class=\"expired\" d=\"M", "</path>");
    let at = moment(-195_140).wall.strftime("%Y-%m-%d %H:%M:%S").to_string();
    assert!(diamond.ends_with(&format!("<title>expired at {at}</title>")), "{diamond}");
    let (x, _) = diamond.split_once(' ').unwrap();
    let bar = between(row, "<rect class=\"current\"", "</rect>");
    let number = |key: &str| -> f64 { between(bar, &format!(" {key}=\""), "\"").parse().unwrap() };
    assert!((number("x") + number("width") - x.parse::<f64>().unwrap()).abs() < 0.5, "the bar ends elsewhere: {row}");
    let description = between(picture, "<desc id=\"timeline-description\">", "</desc>");
    assert!(description.contains("1 ended"), "{description}");
}

#[tokio::test]
async fn the_picture_has_a_bar_for_each_life_and_a_text_beside_it() {
    let server = running(options()).await;
    server.with_trouble().await;
    let (_, page) = server.get(0, "/credential/etl").await;
    let picture = between(&page, "<svg role=\"img\"", "<figcaption>");
    for (what, times) in [
        ("<rect class=\"delivering\"", 3),
        ("<rect class=\"current\"", 3),
        ("<rect class=\"grace\"", 2),
        ("<rect class=\"ahead\"", 2),
        ("<path class=\"delivered\"", 2),
        ("<path class=\"revoked\"", 1),
        ("<path class=\"revoked to-come\"", 1),
        ("<g class=\"now\"", 1),
        ("<g class=\"next\"", 1),
    ] {
        assert_eq!(picture.matches(what).count(), times, "{what}:\n{picture}");
    }
    let description = between(picture, "<desc id=\"timeline-description\">", "</desc>");
    assert!(
        description.contains("each token, the last 3, oldest on top: 1 current, 1 in the grace period, 1 ended"),
        "{description}"
    );
    assert!(picture.contains("aria-labelledby=\"timeline-title\" aria-describedby=\"timeline-description\""));
    let x = |class: &str| -> f64 {
        between(between(picture, &format!("<g class=\"{class}\"><line "), "</g>"), "x1=\"", "\"").parse().unwrap()
    };
    assert!(132.0 < x("now") && x("now") < x("next") && x("next") < 960.0, "now is before what comes next");
}

#[tokio::test]
async fn the_history_is_read_page_by_page() {
    let server = running(options()).await;
    let entries = (0..250).map(|second| entry(second, Happened::ReadFailed, 0)).collect();
    server.record(&name("etl"), &Credential::default(), entries).await;
    let mut address = "/credential/etl/history".to_owned();
    let mut rows = Vec::new();
    loop {
        let (status, page) = server.get(0, &address).await;
        assert_eq!(status, 200, "{page}");
        rows.push(between(&page, "<tbody>", "</tbody>").matches("<tr").count());
        let Some((before, _)) = page.split_once("\" rel=\"next\"") else { break };
        address = before.rsplit_once("href=\"").unwrap().1.to_owned();
    }
    assert_eq!(rows, [100, 100, 50]);
    let (status, told) = server.get(0, "/credential/etl/history?before=soon").await;
    assert_eq!((status, told.contains("`before` is no whole number")), (400, true));
}

/// The names in the table of credentials.
fn listed(page: &str) -> Vec<&str> {
    let Some((_, table)) = page.split_once("Credentials, a table") else { return Vec::new() };
    let table = between(table, "<tbody>", "</tbody>");
    table.split("href=\"/credential/").skip(1).map(|rest| rest.split_once('"').unwrap().0).collect()
}

/// 10,000 credentials, each so manieth of them blocked.
fn many(board: &Board, blocked_each: i64) {
    let organization = board.organization("main");
    for number in 0..10_000_i64 {
        let blocked = (number % blocked_each == 7 % blocked_each).then_some(Blocked::TakeOverNeeded);
        let summary = Summary {
            state: if blocked.is_some() { CredentialState::Blocked } else { CredentialState::Current },
            blocked,
            expires_at: moment(1_000_000 - number).wall.into(),
            due_at: moment(1_000 + number).wall.into(),
            served_until: moment(1_000_000 - number).wall.into(),
            ..Summary::new(organization)
        };
        board.put(&name(&format!("team{}-{number:05}", number % 4)), summary);
    }
}

#[tokio::test]
async fn search_filter_order_and_pages_show_each_credential_once() {
    let server = running(options()).await;
    many(&server.board, 100);
    let (_, first) = server.get(0, "/").await;
    assert!(first.contains("10000 fit; page 1 of 200."), "{first}");
    assert_eq!(listed(&first)[0], "team3-09907", "what is blocked comes first, and of that what ends first");
    let mut seen = BTreeSet::new();
    for number in 1..=5 {
        let (_, page) = server.get(0, &format!("/?q=TEAM2&sort=name&per_page=500&page={number}")).await;
        let names: Vec<String> = listed(&page).into_iter().map(str::to_owned).collect();
        assert!(names.is_sorted() && names.len() == 500, "{} on page {number}", names.len());
        seen.extend(names);
    }
    assert!(seen.len() == 2_500 && seen.iter().all(|name| name.starts_with("team2-")));
    let (_, blocked) = server.get(0, "/?show=blocked&per_page=60&page=99").await;
    assert!(blocked.contains("100 fit; page 2 of 2.") && listed(&blocked).len() == 40, "the last page stands for later ones");
    assert_eq!(listed(&server.get(0, "/?sort=expiry").await.1)[0], "team3-09999");
    assert_eq!(listed(&server.get(0, "/?sort=next").await.1)[0], "team0-00000");
    assert!(server.get(0, "/?q=nobody").await.1.contains("None fits."));
    let (_, found) = server.get(0, "/?q=Team%3DData").await;
    assert!(found.contains("1000 fit;") && listed(&found).iter().all(|name| name.ends_with('7')), "found by label: {found}");
    assert!(server.get(0, "/?q=ETL_").await.1.contains("10000 fit;"), "found by account");
    for wrong in ["/?show=everything", "/?sort=random", "/?page=0", "/?page=x", "/?per_page=501"] {
        let (status, page) = server.get(0, wrong).await;
        assert_eq!((status, page.contains("Nothing to show")), (400, true), "{wrong}");
    }
}

/// How long this thread ran: on a busy machine that says more than the time that passed.
fn processor_time() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(statistics.split(' ').next().unwrap().parse().unwrap())
}

/// Server and client share this test's one thread, so both are counted.
#[tokio::test]
async fn a_page_of_10_000_credentials_takes_less_than_100_ms_of_processor_time() {
    let server = running(options()).await;
    many(&server.board, 100);
    for path in ["/", "/?q=team2&sort=expiry&page=30", "/?show=attention"] {
        let took = takes(&server, path).await;
        assert!(took < Duration::from_millis(100), "{path}: {took:?}");
    }
}

/// The processor time of a page, as a rule.
async fn takes(server: &Running, path: &str) -> Duration {
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..5 {
        let began = processor_time();
        assert_eq!(server.get(0, path).await.0, 200);
        took.push(processor_time() - began);
    }
    took.sort();
    println!("{path}: {took:?}");
    took[2]
}

/// What needs a person is told in full of a few alone, so that the page is there when all goes wrong at once.
#[tokio::test]
async fn a_page_with_5_000_blocked_credentials_takes_hardly_longer_than_one_with_100() {
    let (calm, upset) = (running(options()).await, running(options()).await);
    many(&calm.board, 100);
    many(&upset.board, 2);
    let state = Credential {
        blocked: Some(Block { reason: Blocked::TakeOverNeeded, since: moment(0).wall, detail: "it is taken".to_owned() }),
        ..troubled()
    };
    for listed in listed(&upset.get(0, "/").await.1) {
        upset.record(&name(listed), &state, Vec::new()).await;
    }
    for path in ["/", "/?show=attention", "/?show=blocked&per_page=500&page=9"] {
        let (few, many) = (takes(&calm, path).await, takes(&upset, path).await);
        let page = upset.get(0, path).await.1;
        assert!(listed(&page).len() >= 50, "{path}");
        // A page of 500 lines where the calm fleet has 100: as many times as long, and half as much again.
        let lines = if path.contains("per_page=500") { 5 } else { 1 };
        assert!(many < few * lines * 3 / 2 + few, "{path}: {many:?} beside {few:?}");
    }
}

/// A journal whose disk hangs.
struct Hanging;

#[async_trait::async_trait]
impl Journal for Hanging {
    fn identity(&self) -> Identity {
        Identity { installation: InstallationId(1), created_at: moment(0).wall }
    }

    async fn load(&self, _: &CredentialName) -> Result<Option<Row>, JournalError> {
        std::future::pending().await
    }

    async fn load_after(&self, _: Option<&CredentialName>, _: usize) -> Result<Vec<(CredentialName, Row)>, JournalError> {
        std::future::pending().await
    }

    async fn save(&self, _: Save) -> Result<u64, JournalError> {
        std::future::pending().await
    }

    async fn fact(&self, _: &str) -> Result<Option<String>, JournalError> {
        std::future::pending().await
    }

    async fn set_fact(&self, _: &str, _: String) -> Result<(), JournalError> {
        std::future::pending().await
    }

    async fn history_page(&self, _: Page) -> Result<Vec<(u64, HistoryLine)>, JournalError> {
        std::future::pending().await
    }

    async fn prune_history(&self, _: Timestamp) -> Result<u64, JournalError> {
        std::future::pending().await
    }

    async fn probe(&self) -> Result<(), JournalError> {
        std::future::pending().await
    }

    async fn mark_clock(&self, _: Moment) -> Result<(), JournalError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_journal_that_hangs_does_not_keep_the_fleet_from_being_shown() {
    let board = Arc::new(Board::new(moment(0)));
    many(&board, 100);
    let server = Server::bind(options(), watched(&board, Arc::new(Hanging))).await.unwrap();
    let address = server.addresses()[0];
    let (_shutdown, told) = watch::channel(false);
    tokio::spawn(server.run(told));
    let get = async |path: &str| {
        let response = client().get(format!("http://{address}{path}")).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let (status, page) = get("/").await;
    assert_eq!((status, listed(&page).len()), (200, 50));
    assert!(page.contains("100 more"), "what could not be told is pointed at: {page}");
    let (status, page) = get("/credential/etl").await;
    assert_eq!((status, page.contains("the log says why")), (500, true));
}
