//! The statements that write, prepared once for each session.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Statement};

/// An earlier name's row is there at the version that was loaded, or none is to be taken over.
const FREE: &str = "free AS (
    SELECT 1 WHERE $8 IS NULL
    UNION ALL SELECT 1 FROM rotad.credentials WHERE name = $8 AND version = $9)";

/// What goes with a save: the earlier name's row goes, its history is of this name, and the entries are added.
const WITH_IT: &str = "gone AS (
    DELETE FROM rotad.credentials WHERE name = $8 AND EXISTS (SELECT FROM saved)),
renamed AS (
    UPDATE rotad.history SET credential = $1 WHERE credential = $8 AND EXISTS (SELECT FROM saved)),
told AS (
    INSERT INTO rotad.history (at, credential, what, entry)
    SELECT line.at, $1, line.what, line.entry
    FROM unnest($5, $6, $7) WITH ORDINALITY AS line (at, what, entry, number)
    WHERE EXISTS (SELECT FROM saved) ORDER BY line.number)
SELECT EXISTS (SELECT FROM free), EXISTS (SELECT FROM saved)";

/// `$1` name, `$2` its new version, `$3` when to wake, `$4` state; `$5` to `$7` the entries' times, kinds and texts;
/// `$8` an earlier name and `$9` its version. Gives whether that was as loaded, and whether this was saved.
pub(super) struct Statements {
    /// With `$10`: the version that was loaded.
    pub(super) update: Statement,
    pub(super) insert: Statement,
    pub(super) set_fact: Statement,
    /// `$1` the time in microseconds, `$2` the most lines.
    pub(super) prune: Statement,
    /// `$1` how many bytes. They are random, since a server compresses.
    pub(super) probe: Statement,
    /// The server's process that answers.
    pub(super) backend: Statement,
}

impl Statements {
    pub(super) async fn prepare(client: &Client) -> Result<Self, Error> {
        let update = format!(
            "WITH {FREE},
            saved AS (
                UPDATE rotad.credentials SET version = $2, wake_at = $3, state = $4
                WHERE name = $1 AND version = $10 AND EXISTS (SELECT FROM free) RETURNING 1),
            {WITH_IT}"
        );
        let insert = format!(
            "WITH {FREE},
            saved AS (
                INSERT INTO rotad.credentials (name, version, wake_at, state) SELECT $1, $2, $3, $4 FROM free
                ON CONFLICT DO NOTHING RETURNING 1),
            {WITH_IT}"
        );
        let types = [
            Type::TEXT,
            Type::INT8,
            Type::TEXT,
            Type::TEXT,
            Type::INT8_ARRAY,
            Type::TEXT_ARRAY,
            Type::TEXT_ARRAY,
            Type::TEXT,
            Type::INT8,
            Type::INT8,
        ];
        let set_fact =
            "INSERT INTO rotad.facts (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        let prune = "DELETE FROM rotad.history WHERE id IN (SELECT id FROM rotad.history WHERE at < $1 ORDER BY at LIMIT $2)";
        let probe = "INSERT INTO rotad.facts (name, value)
            SELECT 'probe', string_agg(gen_random_uuid()::text, '') FROM generate_series(1, $1 / 36 + 1)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        Ok(Self {
            update: client.prepare_typed(&update, &types).await?,
            insert: client.prepare_typed(&insert, &types[..9]).await?,
            set_fact: client.prepare_typed(set_fact, &[Type::TEXT, Type::TEXT]).await?,
            prune: client.prepare_typed(prune, &[Type::INT8, Type::INT8]).await?,
            probe: client.prepare_typed(probe, &[Type::INT8]).await?,
            backend: client.prepare("SELECT pg_backend_pid()").await?,
        })
    }
}

/// PostgreSQL's integers are signed.
pub(super) fn stored(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}
