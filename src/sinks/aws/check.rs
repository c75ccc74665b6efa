//! `check --online`: what can be known of a secret without writing.

use super::super::Finding;
use super::failure::Code;
use super::{Secret, read};
use crate::rotation::{Failed, Reason};

pub(super) async fn check(place: &Secret) -> Vec<Finding> {
    let limit = place.store.limits().step;
    tokio::time::timeout(limit, probe(place)).await.unwrap_or_else(|_| {
        let detail = format!("`{}` could not be described within {} s", place.name, limit.as_secs());
        vec![Finding::Wrong(Failed::new(Reason::TimedOut, detail))]
    })
}

async fn probe(place: &Secret) -> Vec<Finding> {
    let name = &place.name;
    let description = match read::describe(place).await {
        Ok(description) => description,
        Err(failure) if failure.code == Code::NotFound => return absent(place),
        Err(failure) => return vec![Finding::Wrong(failure.failed)],
    };
    if description.deleted_date().is_some() {
        let detail = format!("`{name}` is scheduled for deletion: restore it with `aws secretsmanager restore-secret`");
        return vec![Finding::Wrong(Failed::new(Reason::Unsuitable, detail))];
    }
    let key =
        description.kms_key_id().map_or("AWS's own key `aws/secretsmanager`".to_owned(), |key| format!("the KMS key `{key}`"));
    let mut findings = vec![Finding::Fine(format!("`{name}` can be described; it is encrypted with {key}"))];
    if let Err(failed) = read::suitable(name, &description) {
        findings.push(Finding::Wrong(failed));
    }
    if let Some(failed) = read::lagging_replica(name, &description) {
        findings.push(Finding::Wrong(failed));
    } else if !description.replication_status().is_empty() {
        findings.push(Finding::Fine(format!("`{name}` has {} replicas, all in sync", description.replication_status().len())));
    }
    let tagged = match read::owner(name, &description) {
        Ok(owner) => owner,
        Err(failed) => {
            findings.push(Finding::Wrong(failed));
            None
        }
    };
    if let Some(owner) = &tagged {
        findings.push(Finding::Fine(format!("`{name}` belongs to `{owner}`")));
    }
    if read::current(&description).is_some() {
        findings.push(value(place).await);
    }
    let tag = if tagged.is_some() { "" } else { ", `secretsmanager:TagResource`" };
    let own_key = if description.kms_key_id().is_some() { ", `kms:GenerateDataKey` on its key" } else { "" };
    findings.push(Finding::Unknowable(format!(
        "whether `secretsmanager:PutSecretValue`, `secretsmanager:UpdateSecretVersionStage`{tag}{own_key} are allowed on `{name}` shows \
         at the first write"
    )));
    findings
}

/// Whether the value can be read, and is what the delivery's format says.
async fn value(place: &Secret) -> Finding {
    let name = &place.name;
    let body = match read::get(place, None).await {
        Ok(body) => body,
        Err(failure) => return Finding::Wrong(failure.failed),
    };
    let Some(text) = body.text else { return Finding::Wrong(read::binary(name)) };
    if read::was_raw(&place.format, &body.id, text.expose()) {
        return Finding::Fine(format!(
            "the value of `{name}` can be read; it is still `raw`, and becomes JSON with the next rotation"
        ));
    }
    match place.format.extract(text.expose()) {
        Ok(_) => Finding::Fine(format!("the value of `{name}` can be read")),
        Err(failed) => Finding::Wrong(Failed::new(failed.reason, format!("`{name}`: {}", failed.detail))),
    }
}

fn absent(place: &Secret) -> Vec<Finding> {
    let name = &place.name;
    if !place.store.config().create {
        let detail = format!("`{name}` does not exist, and the sink has `create = false`: create it, or let rotad do so");
        return vec![Finding::Wrong(Failed::new(Reason::Missing, detail))];
    }
    vec![
        Finding::Fine(format!("`{name}` does not exist yet and will be created")),
        Finding::Unknowable(format!(
            "whether `secretsmanager:CreateSecret` and `secretsmanager:TagResource` are allowed for `{name}` shows at the first write"
        )),
    ]
}
