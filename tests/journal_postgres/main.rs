//! The PostgreSQL journal on a real server: the contract of every journal, and what only a server that can be lost can meet.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

#[path = "../verify_connect/certificates.rs"]
#[allow(dead_code)] // one test of others changes a certificate
mod certificates;
mod cutter;
#[cfg(feature = "stand-in")]
mod daemon;
#[path = "../support/journal_child.rs"]
mod journal_child;
#[path = "../support/journal_contract.rs"]
mod journal_contract;
mod lost;
#[cfg(feature = "stand-in")]
#[path = "../support/openbao.rs"]
mod openbao;
#[cfg(feature = "stand-in")]
#[path = "../support/plain.rs"]
mod plain;
#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/process.rs"]
mod process;
#[cfg(feature = "stand-in")]
mod standby;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use rotad::journal::{Database, Host, Journal, JournalError, PostgresJournal};
use rotad::secret::SecretSource;
use tokio::sync::Mutex;
use tokio_postgres::Client;

use certificates::Authority;
use journal_child::{child_journal, follow, judge, reads_follow_the_writer, save_until_killed, spawn_child};
use journal_contract::{Commits, Opened, at, name, save};
use postgres::Postgres;

/// The password of the role that the journals belong to.
const PASSWORD: &str = "correct-horse 7 battery-staple";

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server with the role `rotad`, its authority, and a file with the role's password.
struct Server {
    postgres: Postgres,
    authority: Authority,
    directory: tempfile::TempDir,
}

/// The server of all tests that run at the same time; it ends with the last of them.
static SERVER: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());
static NUMBER: AtomicUsize = AtomicUsize::new(0);

impl Server {
    async fn start() -> Self {
        let authority = Authority::new();
        let signed = authority.signs();
        let hosts = "hostssl all all all scram-sha-256\nhostnossl all all 127.0.0.1/32 scram-sha-256";
        let postgres = Postgres::start_with(&signed.certificate, &signed.key, hosts).await;
        let create = format!("CREATE ROLE rotad LOGIN PASSWORD '{PASSWORD}'");
        postgres.superuser("postgres").await.batch_execute(&create).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("password"), format!("{PASSWORD}\n")).unwrap();
        std::fs::set_permissions(directory.path().join("password"), PermissionsExt::from_mode(0o600)).unwrap();
        Self { postgres, authority, directory }
    }

    async fn shared() -> Arc<Self> {
        let mut shared = SERVER.lock().await;
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start().await);
        *shared = Arc::downgrade(&server);
        server
    }

    async fn admin(&self, database: &str) -> Client {
        self.postgres.superuser(database).await
    }

    /// A database of a test's own, reached over the socket.
    async fn database(&self) -> Database {
        let name = format!("t{}", NUMBER.fetch_add(1, Ordering::SeqCst));
        self.admin("postgres").await.batch_execute(&format!("CREATE DATABASE {name} OWNER rotad")).await.unwrap();
        Database {
            host: Host::Socket(self.postgres.socket()),
            port: self.postgres.port,
            user: "rotad".to_owned(),
            name,
            tls: false,
            ca_cert: None,
            password: None,
        }
    }

    fn password_file(&self) -> PathBuf {
        self.directory.path().join("password")
    }

    /// The same database over TCP at `port` of this machine, without TLS.
    fn over_tcp(&self, database: &Database, port: u16) -> Database {
        let password = Some(SecretSource::File(self.password_file()));
        Database { host: Host::Name("127.0.0.1".to_owned()), port, password, ..database.clone() }
    }

    fn over_tls(&self, database: &Database) -> Database {
        let tcp = self.over_tcp(database, self.postgres.port);
        Database { tls: true, ca_cert: Some(self.authority.file.clone()), ..tcp }
    }
}

async fn open(database: &Database) -> Result<PostgresJournal, JournalError> {
    PostgresJournal::open(database, at(0), Arc::new(|_| {})).await
}

/// The refusal of both, an opening and a look, which must be the same.
async fn unusable(database: &Database) -> String {
    let (opened, looked) = (open(database).await.map(drop), PostgresJournal::look(database).await.map(drop));
    match (opened, looked) {
        (Err(JournalError::Unusable(text)), Err(JournalError::Unusable(looked))) => {
            assert_eq!(text, looked);
            assert!(!text.contains("battery"), "{text}");
            text
        }
        other => panic!("expected `Unusable`, found {other:?}"),
    }
}

async fn open_new() -> Opened {
    let server = Server::shared().await;
    let commits = Arc::new(Commits::default());
    let journal = PostgresJournal::open(&server.database().await, at(0), commits.observer()).await.unwrap();
    Opened { journal: Arc::new(journal), commits, _keep: Box::new(server) }
}

journal_contract!(open_new);

/// The child's journal, as `spawn_child` was told it: socket, port and database.
async fn open_as_child(told: &str) -> Arc<dyn Journal> {
    let mut parts = told.split('|');
    let mut part = || parts.next().unwrap();
    let (socket, port, name) = (PathBuf::from(part()), part().parse().unwrap(), part().to_owned());
    let user = "rotad".to_owned();
    let database = Database { host: Host::Socket(socket), port, user, name, tls: false, ca_cert: None, password: None };
    Arc::new(open(&database).await.unwrap())
}

fn for_child(server: &Server, database: &Database) -> String {
    format!("{}|{}|{}", server.postgres.socket().display(), database.port, database.name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_answered_is_lost_by_kill_9() {
    if let Some(told) = child_journal() {
        return save_until_killed(open_as_child(&told).await).await;
    }
    let server = Server::shared().await;
    for round in 1..=2 {
        let database = server.database().await;
        let mut child = spawn_child("nothing_that_was_answered_is_lost_by_kill_9", &for_child(&server, &database));
        let told = tokio::task::block_in_place(|| follow(&mut child, 100 * round, |child| child.kill()));
        child.wait();
        // Its lock goes with its session, whose end the server may see a little later.
        let journal = loop {
            match open(&database).await {
                Err(JournalError::InUse(_)) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                opened => break opened.unwrap(),
            }
        };
        judge(&journal, told).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_is_refused_and_told_who_has_it_and_may_read_meanwhile() {
    if let Some(told) = child_journal() {
        return save_until_killed(open_as_child(&told).await).await;
    }
    let server = Server::shared().await;
    let database = server.database().await;
    let test = "a_second_process_is_refused_and_told_who_has_it_and_may_read_meanwhile";
    let mut child = spawn_child(test, &for_child(&server, &database));
    let runtime = tokio::runtime::Handle::current();
    let told = tokio::task::block_in_place(|| {
        follow(&mut child, 50, |child| {
            let expected = format!("is in use by `rotad {} on ", child.0.id());
            let error = runtime.block_on(open(&database)).unwrap_err();
            assert!(matches!(&error, JournalError::InUse(text) if text.contains(&expected)), "{error}");
            let reader = runtime.block_on(PostgresJournal::look(&database)).unwrap().unwrap();
            runtime.block_on(reads_follow_the_writer(&reader));
            child.kill();
        })
    });
    child.wait();
    assert_eq!(told.len(), 8);
}

#[tokio::test]
async fn a_journal_keeps_identity_rows_and_facts_when_it_is_opened_again() {
    let server = Server::shared().await;
    let database = server.database().await;
    assert!(PostgresJournal::look(&database).await.unwrap().is_none(), "rotad has not run yet");
    let first = open(&database).await.unwrap();
    first.save(save("etl", None, "{}")).await.unwrap();
    first.set_fact("fact", "value".to_owned()).await.unwrap();
    let error = open(&database).await.unwrap_err();
    assert!(matches!(&error, JournalError::InUse(text) if text.contains(&std::process::id().to_string())), "{error}");
    let identity = first.identity();
    first.close().await;
    let again =
        PostgresJournal::open(&database, at(1_000), Arc::new(|_| {})).await.expect("a closed journal's lock is free at once");
    assert_eq!(again.identity(), identity);
    assert_eq!(again.identity().created_at, at(0));
    assert_eq!(again.load(&name("etl")).await.unwrap().map(|row| row.version), Some(1));
    assert_eq!(again.fact("fact").await.unwrap().as_deref(), Some("value"));
    again.close().await;
    server.admin(&database.name).await.batch_execute("DROP SCHEMA rotad CASCADE").await.unwrap();
    let new = open(&database).await.unwrap();
    assert_ne!(new.identity().installation, identity.installation, "a new journal is a new installation");
}

#[tokio::test]
async fn of_two_that_begin_a_journal_at_once_one_does_and_the_other_is_refused() {
    let server = Server::shared().await;
    let database = server.database().await;
    let (one, other) = tokio::join!(open(&database), open(&database));
    let (journal, refused) = if one.is_ok() { (one, other) } else { (other, one) };
    assert!(matches!(refused, Err(JournalError::InUse(_))), "{refused:?}");
    let seen = PostgresJournal::look(&database).await.unwrap().unwrap();
    assert_eq!(seen.identity(), journal.unwrap().identity());
}

#[tokio::test]
async fn what_is_no_journal_or_a_newer_one_is_refused_and_not_touched() {
    let server = Server::shared().await;
    let database = server.database().await;
    let admin = server.admin(&database.name).await;
    admin.batch_execute("CREATE SCHEMA rotad AUTHORIZATION rotad; CREATE TABLE rotad.theirs (x int)").await.unwrap();
    let text = unusable(&database).await;
    assert!(text.contains("holds something else than a journal"), "{text}");
    let tables = admin.query_one("SELECT count(*) FROM pg_tables WHERE schemaname = 'rotad'", &[]).await.unwrap();
    assert_eq!(tables.get::<_, i64>(0), 1);
    // Somebody who may create nothing else may be given the schema.
    admin.batch_execute("DROP TABLE rotad.theirs").await.unwrap();
    let journal = open(&database).await.unwrap();
    journal.close().await;

    admin.batch_execute("UPDATE rotad.identity SET schema = 99").await.unwrap();
    let text = unusable(&database).await;
    assert!(text.contains("was written by a newer rotad (its schema has version 99, this rotad knows up to 1)"), "{text}");
    admin.batch_execute("DELETE FROM rotad.identity").await.unwrap();
    let text = unusable(&database).await;
    assert!(text.contains("is damaged or not rotad's (it has no identity)") && text.contains("drop its schema"), "{text}");
}

#[tokio::test]
async fn a_database_that_can_not_be_is_refused_with_what_to_do() {
    let server = Server::shared().await;
    let database = server.database().await;
    let admin = server.admin("postgres").await;
    let absent = Database { name: "absent".to_owned(), ..database.clone() };
    let text = unusable(&absent).await;
    assert!(text.contains("does not exist") && text.contains("CREATE DATABASE absent OWNER rotad"), "{text}");
    let latin = "CREATE DATABASE latin OWNER rotad ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    admin.batch_execute(latin).await.unwrap();
    let text = unusable(&Database { name: "latin".to_owned(), ..database.clone() }).await;
    assert!(text.contains("has the encoding LATIN1") && text.contains("ENCODING 'UTF8'"), "{text}");

    admin.batch_execute("CREATE DATABASE closed").await.unwrap();
    let closed = Database { name: "closed".to_owned(), ..database.clone() };
    let error = open(&closed).await.unwrap_err().to_string();
    assert!(error.contains("refuses `rotad`") && error.contains("GRANT CREATE ON DATABASE closed TO rotad"), "{error}");
    assert!(PostgresJournal::look(&closed).await.unwrap().is_none());

    admin.batch_execute("CREATE DATABASE standing OWNER rotad").await.unwrap();
    admin.batch_execute("ALTER DATABASE standing SET default_transaction_read_only = on").await.unwrap();
    let error = open(&Database { name: "standing".to_owned(), ..database.clone() }).await.unwrap_err().to_string();
    assert!(error.contains("must lead to the primary server"), "{error}");

    let nowhere = server.over_tcp(&database, free_port());
    let text = unusable(&nowhere).await;
    assert!(text.contains("can't be reached") && text.contains("look at the server"), "{text}");
}

#[tokio::test]
async fn over_tls_the_server_is_verified_and_the_password_never_told() {
    let server = Server::shared().await;
    let database = server.over_tls(&server.database().await);
    let journal = open(&database).await.unwrap();
    assert_eq!(journal.save(save("etl", None, "{}")).await.unwrap(), 1);
    assert!(!format!("{journal:?} {database}").contains("battery"));
    journal.close().await;

    let stranger = Authority::new();
    let text = unusable(&Database { ca_cert: Some(stranger.file.clone()), ..database.clone() }).await;
    assert!(text.contains("certificate") && text.contains("is `ca_cert` the authority that signed it"), "{text}");
    let text = unusable(&Database { host: Host::Name("localhost".to_owned()), ..database.clone() }).await;
    assert!(text.contains("certificate"), "{text}");
    let text = unusable(&Database { ca_cert: Some("/nowhere/ca.pem".into()), ..database.clone() }).await;
    assert!(text.contains("`ca_cert` `/nowhere/ca.pem` can't be used"), "{text}");

    let wrong = server.directory.path().join("wrong");
    std::fs::write(&wrong, "battery-of-another-kind").unwrap();
    let text = unusable(&Database { password: Some(SecretSource::File(wrong)), ..database.clone() }).await;
    assert!(text.contains("does not let `rotad` in") && text.contains("journal.password"), "{text}");
    let text = unusable(&Database { password: Some(SecretSource::File("/nowhere/password".into())), ..database }).await;
    assert!(text.contains("the password of journal") && text.contains("/nowhere/password"), "{text}");
}

/// Whatever the operator set for the role, a commit that was answered is on the disk.
#[tokio::test]
async fn every_commit_waits_for_the_disk() {
    let server = Server::shared().await;
    let database = server.database().await;
    let admin = server.admin(&database.name).await;
    for (set, expected) in [("off", "on"), ("local", "on"), ("remote_write", "on"), ("remote_apply", "remote_apply")] {
        admin.batch_execute(&format!("ALTER DATABASE {} SET synchronous_commit = {set}", database.name)).await.unwrap();
        let journal = open(&database).await.unwrap();
        admin
            .batch_execute(
                "CREATE TABLE IF NOT EXISTS public.seen (setting text);
                 GRANT ALL ON public.seen TO rotad;
                 CREATE OR REPLACE FUNCTION public.look() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN INSERT INTO public.seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
                 CREATE OR REPLACE TRIGGER look AFTER INSERT ON rotad.credentials EXECUTE FUNCTION public.look()",
            )
            .await
            .unwrap();
        journal.save(save(set, None, "{}")).await.unwrap();
        let seen = admin.query_one("DELETE FROM public.seen RETURNING setting", &[]).await.unwrap();
        assert_eq!(seen.get::<_, &str>(0), expected, "with {set}");
        journal.close().await;
    }
}

#[tokio::test]
async fn a_lock_of_another_session_is_waited_for_no_longer_than_a_limit_and_then_told() {
    let server = Server::shared().await;
    let database = server.database().await;
    let commits = Arc::new(Commits::default());
    let journal = Arc::new(PostgresJournal::open(&database, at(0), commits.observer()).await.unwrap());
    let mut admin = server.admin(&database.name).await;
    let transaction = admin.transaction().await.unwrap();
    transaction.batch_execute("LOCK TABLE rotad.credentials IN EXCLUSIVE MODE").await.unwrap();
    commits.slow.store(true, Ordering::SeqCst);
    journal.set_fact("holds up the next", String::new()).await.unwrap();
    let began = std::time::Instant::now();
    let saving = (0..20).map(|number| {
        let journal = journal.clone();
        tokio::spawn(async move { journal.save(save(&format!("c{number}"), None, "{}")).await })
    });
    for saved in saving.collect::<Vec<_>>() {
        let error = saved.await.unwrap().unwrap_err();
        assert!(matches!(&error, JournalError::Unwritable(text) if text.contains("hold a lock on the tables")), "{error}");
    }
    // Two commits at most, of 5 s each: not one for each save.
    assert!(began.elapsed() < std::time::Duration::from_secs(50), "{:?}", began.elapsed());
    assert_eq!(journal.load(&name("etl")).await.unwrap(), None, "reading goes on");
    transaction.rollback().await.unwrap();
    assert_eq!(journal.save(save("etl", None, "{}")).await.unwrap(), 1);
}

#[tokio::test]
async fn a_save_that_the_server_refuses_does_not_fail_the_one_that_shares_its_commit() {
    let server = Server::shared().await;
    let commits = Arc::new(Commits::default());
    let journal = PostgresJournal::open(&server.database().await, at(0), commits.observer()).await.unwrap();
    // While the observer holds up this commit, the next two saves gather behind it.
    commits.slow.store(true, Ordering::SeqCst);
    journal.save(save("first", None, "{}")).await.unwrap();
    let (refused, fine) = tokio::join!(journal.save(save("refused", None, "a \0 in it")), journal.save(save("fine", None, "{}")));
    assert!(matches!(refused, Err(JournalError::Unwritable(_))), "{refused:?}");
    assert_eq!(fine.unwrap(), 1);
    assert_eq!(journal.load(&name("refused")).await.unwrap(), None);
}
