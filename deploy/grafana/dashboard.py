"""The Grafana dashboard's source: rows of panels, each a title, what it is for, a unit and queries.

`deploy/generate` writes deploy/grafana/rotad.json from it; edit this, not that.
"""

WIDTH = 24
INSTANCE = 'instance=~"$instance"'


def series(name, *matchers):
    """One of rotad's series, of the chosen instances."""
    return f"{name}{{{', '.join((INSTANCE, *matchers))}}}"


def rate(name, by, *matchers):
    return f"sum by ({by}) (rate({series(name, *matchers)}[$__rate_interval]))"


def quantile(share, name, by):
    return f"histogram_quantile({share}, {rate(name + '_bucket', f'le, {by}' if by else 'le')})"


def until(name):
    """How far ahead a moment is, in seconds."""
    return f"{series(name)} - time()"


# Title, what a look at it is for, unit, width, kind, then pairs of a legend and a query.
ROWS = {
    "Fleet": [
        ("Consumers keep working for", "If rotad ended now.", "s", 4, "stat", ("", until("rotad_survival_deadline_timestamp_seconds"))),
        ("Need a person", "Blocked credentials; the runbook says what each reason means.", "short", 4, "stat",
         ("", f"sum({series('rotad_blocked')})")),
        ("Past the deadline", "Credentials past the last safe moment to have rotated.", "short", 4, "stat",
         ("", series("rotad_credentials_past_deadline"))),
        ("Overdue", "Credentials whose rotation is due and not done.", "short", 4, "stat", ("", series("rotad_credentials_past_due"))),
        ("Heartbeat", "The scheduler's last sign of life; at least one a minute.", "s", 4, "stat",
         ("", f"time() - {series('rotad_scheduler_heartbeat_timestamp_seconds')}")),
        ("Version", "What runs.", "short", 4, "stat", ("{{version}} {{revision}}", series("rotad_build_info"))),
        ("Credentials by state", "", "short", 12, "timeseries", ("{{state}}", f"sum by (state) ({series('rotad_credentials')})")),
        ("Blocked by reason", "", "short", 12, "timeseries", ("{{reason}}", f"sum by (reason) ({series('rotad_blocked')})")),
        ("Tokens by phase", "Recorded tokens that live or may live. A sum that grows for days means that revocations don't come through.",
         "short", 12, "timeseries", ("{{phase}}", f"sum by (phase) ({series('rotad_tokens')})")),
        ("Tokens of others", "Unknown: named for our credentials, and not in the journal. Foreign: anybody else's.", "short", 12, "timeseries",
         ("unknown", series("rotad_unknown_tokens")), ("foreign", series("rotad_foreign_tokens"))),
    ],
    "Credentials": [
        ("Most margin used", "The share of its own slack that a credential has used up: 0 when due, 1 at its deadline.", "percentunit", 12,
         "timeseries", ("{{credential}}", f"topk(10, {series('rotad:credential_margin_used:ratio')})")),
        ("First tokens to expire", "", "s", 12, "timeseries",
         ("{{credential}}", f"bottomk(10, {until('rotad_token_expiry_timestamp_seconds')})")),
        ("Next due", "", "s", 12, "timeseries", ("{{credential}}", f"bottomk(10, {until('rotad_due_timestamp_seconds')})")),
        ("Longest without a rotation", "", "s", 12, "timeseries",
         ("{{credential}}", f"topk(10, time() - {series('rotad_last_success_timestamp_seconds')})")),
    ],
    "Rotations and margins": [
        ("Rotations by outcome", "", "ops", 8, "timeseries", ("{{outcome}}", rate("rotad_rotations_total", "outcome"))),
        ("Revocations by outcome", "", "ops", 8, "timeseries", ("{{outcome}}", rate("rotad_revocations_total", "outcome"))),
        ("Failed steps", "By step and reason.", "ops", 8, "timeseries", ("{{step}}: {{reason}}", rate("rotad_step_failures_total", "step, reason"))),
        ("Margin of rotations", "From the delivery everywhere to the old token's expiry; the lowest tenth and the median.", "s", 8, "timeseries",
         ("lowest tenth", quantile(0.1, "rotad_rotation_margin_seconds", "")), ("median", quantile(0.5, "rotad_rotation_margin_seconds", ""))),
        ("Schedule lag", "From due to begun: windows and limits explain it, or something is stuck.", "s", 8, "timeseries",
         ("median", quantile(0.5, "rotad_schedule_lag_seconds", "")), ("99 %", quantile(0.99, "rotad_schedule_lag_seconds", ""))),
        ("Revocations that wait", "", "short", 8, "timeseries", ("pending", series("rotad_revocations_pending")),
         ("orphans", series("rotad_orphans")), ("lost", series("rotad_lost"))),
        ("Most overdue revocation", "Below 0 it is still to come.", "s", 8, "timeseries",
         ("", f"time() - {series('rotad_revocation_oldest_due_timestamp_seconds')}")),
        ("Revocations frozen", "1 while nothing is revoked for this reason.", "short", 8, "timeseries",
         ("{{reason}}", f"max by (reason) ({series('rotad_revocations_frozen')})")),
        ("First expiry by organization", "", "s", 8, "timeseries", ("{{organization}}", until("rotad_earliest_expiry_timestamp_seconds"))),
    ],
    "MotherDuck's API": [
        ("Requests by status", "`connect`, `timeout` and `broken`: there was no answer.", "reqps", 12, "timeseries",
         ("{{code}}", rate("rotad_provider_requests_total", "code"))),
        ("Requests by operation", "", "reqps", 12, "timeseries", ("{{operation}}", rate("rotad_provider_requests_total", "operation"))),
        ("Duration, 99 %", "", "s", 8, "timeseries", ("{{operation}}", quantile(0.99, "rotad_provider_request_duration_seconds", "operation"))),
        ("Throttled and failed", "The shares that the alerts go by.", "percentunit", 8, "timeseries",
         ("throttled", f"sum({series('rotad:provider_throttled:ratio_rate15m')})"),
         ("failed", f"sum({series('rotad:provider_failed:ratio_rate15m')})")),
        ("Admin token expires in", "Only where the token itself says when.", "s", 8, "timeseries",
         ("{{organization}}", until("rotad_admin_token_expiry_timestamp_seconds"))),
    ],
    "Sinks": [
        ("Deliveries by outcome", "", "ops", 12, "timeseries", ("{{sink}}: {{outcome}}", rate("rotad_deliveries_total", "sink, outcome"))),
        ("Unconfirmed deliveries", "Places that don't confirm the newest token.", "short", 12, "timeseries",
         ("{{sink}}", f"sum by (sink) ({series('rotad_deliveries_unconfirmed')})")),
        ("Duration, 99 %", "", "s", 12, "timeseries",
         ("{{sink}}: {{operation}}", quantile(0.99, "rotad_sink_request_duration_seconds", "sink, operation"))),
        ("Last complete sweep", "The oldest of the credentials' last looks.", "s", 12, "timeseries",
         ("{{organization}}", f"time() - {series('rotad_sweep_last_success_timestamp_seconds')}")),
    ],
    "rotad itself": [
        ("Journal commit, 99 %", "Above a second the disk is in trouble.", "s", 8, "timeseries",
         ("", quantile(0.99, "rotad_journal_commit_duration_seconds", ""))),
        ("Clock skew", "Local time minus the API's; beyond a minute, revocations wait.", "s", 8, "timeseries",
         ("skew", series("rotad_clock_skew_seconds")), ("jumps", series("rotad_clock_jumps_total"))),
        ("Configuration", "1 while the last load was accepted; and how old it is.", "short", 8, "timeseries",
         ("accepted", series("rotad_config_last_reload_successful")),
         ("age in seconds", f"time() - {series('rotad_config_last_reload_success_timestamp_seconds')}")),
    ],
}

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panel(number, left, top, title, description, unit, width, kind, *targets):
    height = 4 if kind == "stat" else 8
    made = {
        "id": number,
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "gridPos": {"x": left, "y": top, "w": width, "h": height},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": DATASOURCE, "expr": query, "legendFormat": legend or "{{instance}}"}
            for index, (legend, query) in enumerate(targets)
        ],
    }
    if kind == "stat":
        named = title == "Version"
        made["options"] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "textMode": "name" if named else "auto"}
    return made


def panels():
    made, top = [], 0
    for title, row in ROWS.items():
        made.append({"id": len(made) + 1, "type": "row", "title": title, "collapsed": False, "panels": [],
                     "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1}})
        top, left, height = top + 1, 0, 0
        for entry in row:
            if left + entry[3] > WIDTH:
                top, left, height = top + height, 0, 0
            made.append(panel(len(made) + 1, left, top, *entry))
            left, height = left + entry[3], made[-1]["gridPos"]["h"]
        top += height
    return made


def dashboard():
    variables = [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
        {"name": "instance", "type": "query", "label": "Instance", "datasource": DATASOURCE, "multi": True, "includeAll": True,
         "allValue": ".*", "current": {"text": "All", "value": "$__all"}, "refresh": 2,
         "query": {"query": "label_values(rotad_build_info, instance)", "refId": "instances"}},
    ]
    return {
        "uid": "rotad",
        "title": "rotad",
        "tags": ["rotad"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "1m",
        "time": {"from": "now-24h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": variables},
        "panels": panels(),
    }
