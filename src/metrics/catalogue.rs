//! Every metric's name, labels and meaning. Nothing else in the program spells a metric's name.
//!
//! The table in `docs/metrics.md` is held against this list by a test.

/// What Prometheus calls the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Histogram,
    Gauge,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Histogram => "histogram",
            Self::Gauge => "gauge",
        }
    }
}

/// One metric family. Its help says the unit wherever there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// Declares the definitions and the list of them all.
macro_rules! catalogue {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(pub const $constant: Definition =
            Definition { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)+

        /// Every metric that rotad exports.
        pub const ALL: &[Definition] = &[$($constant),+];
    };
}

catalogue! {
    ROTATIONS = Counter "rotad_rotations_total" ["outcome"]
        "Rotations that ended, by outcome; only `succeeded` is confirmed at every delivery.";
    STEP_FAILURES = Counter "rotad_step_failures_total" ["step", "reason"]
        "Steps of rotations that failed; each is repeated or ends in a block.";
    DELIVERIES = Counter "rotad_deliveries_total" ["sink", "outcome"]
        "Writes to places that were not done or not known to be, and read-backs that confirmed one, by kind of sink.";
    PROVIDER_REQUESTS = Counter "rotad_provider_requests_total" ["operation", "code"]
        "Requests to MotherDuck's API by HTTP status; `connect`, `timeout` or `broken` when no answer came.";
    REVOCATIONS = Counter "rotad_revocations_total" ["outcome"]
        "Attempts to revoke a token, and tokens that expired before they were revoked.";
    CLOCK_JUMPS = Counter "rotad_clock_jumps_total" []
        "Jumps of the wall clock by more than 60 seconds against the time since boot.";
    WEBHOOK_MESSAGES = Counter "rotad_webhook_messages_total" ["outcome"]
        "Messages to the webhook, `sent` or `failed`; what failed is told again.";
    TRACE_SPANS = Counter "rotad_trace_spans_total" ["outcome"]
        "Spans of traces, `sent` to the collector or `lost`; 0 in a build without traces.";

    PROVIDER_REQUEST_DURATION = Histogram "rotad_provider_request_duration_seconds" ["operation"]
        "Seconds that a request to MotherDuck's API took, failed ones included.";
    SINK_REQUEST_DURATION = Histogram "rotad_sink_request_duration_seconds" ["sink", "operation"]
        "Seconds that a read or a write of a place took, failed ones included, by kind of sink.";
    JOURNAL_COMMIT_DURATION = Histogram "rotad_journal_commit_duration_seconds" []
        "Seconds that a durable commit of the journal took.";
    SCHEDULE_LAG = Histogram "rotad_schedule_lag_seconds" []
        "Seconds from a rotation's due time to its start.";
    ROTATION_MARGIN = Histogram "rotad_rotation_margin_seconds" []
        "Seconds from the delivery everywhere to the old token's expiry; negative when it came too late.";

    CREDENTIALS = Gauge "rotad_credentials" ["state"]
        "Credentials by what they are doing.";
    BLOCKED = Gauge "rotad_blocked" ["reason"]
        "Credentials that need a person, by reason.";
    TOKENS = Gauge "rotad_tokens" ["phase"]
        "Tokens that the journal recorded and that live, or may live, by phase.";
    LOST = Gauge "rotad_lost" []
        "Tokens that were asked for with an unknown outcome and are looked for by name.";
    ORPHANS = Gauge "rotad_orphans" []
        "Tokens whose value was gone before every delivery had it, and that are not revoked yet.";
    UNKNOWN_TOKENS = Gauge "rotad_unknown_tokens" []
        "Live tokens named for our credentials that the journal did not record; left to expire.";
    FOREIGN_TOKENS = Gauge "rotad_foreign_tokens" []
        "Live tokens in the accounts that are not named for the credential that listed them; never touched.";
    DELIVERIES_UNCONFIRMED = Gauge "rotad_deliveries_unconfirmed" ["sink"]
        "Deliveries that do not confirm their credential's newest token, by kind of sink.";
    CREDENTIALS_PAST_DUE = Gauge "rotad_credentials_past_due" []
        "Credentials whose next rotation is due and not done.";
    CREDENTIALS_PAUSED = Gauge "rotad_credentials_paused" []
        "Credentials at which a person paused rotations.";
    CREDENTIALS_PAST_DEADLINE = Gauge "rotad_credentials_past_deadline" []
        "Credentials past the last safe moment to have rotated.";
    EARLIEST_EXPIRY = Gauge "rotad_earliest_expiry_timestamp_seconds" ["organization"]
        "When the first of the current tokens expires, in seconds since 1970.";
    REVOCATIONS_PENDING = Gauge "rotad_revocations_pending" []
        "Revocations that wait for their time, their conditions or a repetition.";
    REVOCATION_OLDEST_DUE = Gauge "rotad_revocation_oldest_due_timestamp_seconds" []
        "When the first of the pending revocations is or was due, in seconds since 1970.";
    REVOCATIONS_FROZEN = Gauge "rotad_revocations_frozen" ["reason"]
        "1 while nothing is revoked for this reason, otherwise 0.";
    CLOCK_SKEW = Gauge "rotad_clock_skew_seconds" []
        "Local time minus the API's, in seconds, at the last comparison.";
    SURVIVAL_DEADLINE = Gauge "rotad_survival_deadline_timestamp_seconds" []
        "Until when every consumer keeps working if rotad dies now, in seconds since 1970.";
    ADMIN_TOKEN_EXPIRY = Gauge "rotad_admin_token_expiry_timestamp_seconds" ["organization"]
        "When the admin token expires, in seconds since 1970; absent unless known.";
    FLEET_ACCOUNTS = Gauge "rotad_fleet_accounts" ["fleet"]
        "Accounts that the fleet covers, missing ones included.";
    FLEET_ACCOUNTS_MISSING = Gauge "rotad_fleet_accounts_missing" ["fleet"]
        "Accounts of the fleet that the last list of users lacked and that are not let go, yet.";
    FLEET_LETTING_GO_REFUSED = Gauge "rotad_fleet_letting_go_refused" ["fleet"]
        "1 while no account of the fleet is let go since too many are gone at once, otherwise 0.";
    FLEET_LIST_LAST_SUCCESS = Gauge "rotad_fleet_list_last_success_timestamp_seconds" ["fleet"]
        "When the fleet's accounts were last listed completely, in seconds since 1970.";
    ACCOUNTS = Gauge "rotad_accounts" ["state"]
        "Accounts of the configuration by how they were found.";
    ACCOUNTS_FAILING = Gauge "rotad_accounts_failing" []
        "Accounts of the configuration whose last look or change failed.";
    SWEEP_LAST_SUCCESS = Gauge "rotad_sweep_last_success_timestamp_seconds" ["organization"]
        "Since when every credential was swept with success, in seconds since 1970; absent while one never was.";
    SCHEDULER_HEARTBEAT = Gauge "rotad_scheduler_heartbeat_timestamp_seconds" []
        "When the scheduler last gave a sign of life, in seconds since 1970.";
    STANDBY = Gauge "rotad_standby" []
        "1 while another rotad has the journal and this one stands by to take over, otherwise 0.";
    CONFIG_LAST_RELOAD_SUCCESSFUL = Gauge "rotad_config_last_reload_successful" []
        "1 if the last load of the configuration succeeded, otherwise 0 and the one before is in force.";
    CONFIG_LAST_RELOAD_SUCCESS = Gauge "rotad_config_last_reload_success_timestamp_seconds" []
        "When the configuration in force was loaded, in seconds since 1970.";
    BUILD_INFO = Gauge "rotad_build_info" ["version", "revision"]
        "Always 1; the labels say what is running.";

    TOKEN_EXPIRY = Gauge "rotad_token_expiry_timestamp_seconds" ["credential"]
        "When the credential's current token expires, in seconds since 1970.";
    DUE = Gauge "rotad_due_timestamp_seconds" ["credential"]
        "When the credential's next rotation is due by its schedule, in seconds since 1970.";
    DEADLINE = Gauge "rotad_deadline_timestamp_seconds" ["credential"]
        "The last safe moment to have rotated the credential, in seconds since 1970.";
    LAST_SUCCESS = Gauge "rotad_last_success_timestamp_seconds" ["credential"]
        "When a rotation of the credential last was confirmed at every delivery, in seconds since 1970.";
}
