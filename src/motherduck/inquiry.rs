//! What the documentation of MotherDuck's API leaves open, asked of the API itself with tokens of an account that
//! nobody uses. Nothing here is part of a rotation: rotad keeps its promises whichever way each answer goes.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::answer::{Answer, api_error};
use super::client::Client;
use super::observer::Operation;
use super::{Provider, claims};
use crate::json::Object;
use crate::rotation::{Account, Failed, ListOutcome, Reason, RevokeOutcome, TokenId, TokenType, VerifyOutcome};
use crate::secret::{Secret, presentable};

/// The shortest life of a token (documented).
const TTL: u64 = 300;
/// How long an effect of a revocation is waited for.
const EFFECT_MAX: Duration = Duration::from_secs(60);
/// How long a new token may be missing from a list before that is told.
const LIST_MAX: Duration = Duration::from_secs(10);
/// How long after its expiry a token may stay in lists before that is told.
const EXPIRY_MAX: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(250);
/// An id that no token has.
const NO_ID: &str = "00000000-0000-4000-8000-000000000000";

/// One question with its answer.
#[derive(Debug, Serialize)]
pub struct Finding {
    pub question: &'static str,
    /// What was done, and what came; no value of a token is in it.
    pub found: Vec<String>,
    /// What rotad takes for granted of it.
    pub rotad: &'static str,
}

/// What an inquiry found, and what it could not take away again.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub findings: Vec<Finding>,
    /// Ids of its tokens that may live on until they expire, minutes after.
    pub left: Vec<TokenId>,
}

/// An answer, its body read.
struct Reply {
    /// Status and, of an error, code and message.
    told: String,
    status: u16,
    body: BTreeMap<String, Value>,
    value: Option<Secret>,
}

impl Reply {
    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    fn text(&self, key: &str) -> &str {
        self.body.get(key).and_then(Value::as_str).unwrap_or_default()
    }
}

/// Tokens that were made, each with its value.
struct Made {
    id: TokenId,
    name: String,
    value: Secret,
    expire_at: String,
}

/// Asks about one account.
pub struct Inquiry<'c> {
    client: &'c Client,
    account: &'c Account,
    /// What all names begin with, so that nothing of others is touched.
    prefix: String,
    names: u32,
    made: Vec<TokenId>,
    findings: Vec<Finding>,
}

impl<'c> Inquiry<'c> {
    /// `nonce` makes the tokens' names this inquiry's own.
    pub fn new(client: &'c Client, account: &'c Account, nonce: u64) -> Self {
        let prefix = format!("rotad-probe-{nonce:016x}");
        Self { client, account, prefix, names: 0, made: Vec::new(), findings: Vec::new() }
    }

    /// Asks all of it; with `until_expiry` it waits five minutes for a token to expire. What was made is revoked in
    /// the end, however far it came.
    ///
    /// # Errors
    /// Why it could not go on, beside the report of what came before.
    pub async fn run(mut self, until_expiry: bool) -> (Report, Result<(), Failed>) {
        let outcome = self.ask(until_expiry).await;
        let left = self.clean_up().await;
        (Report { findings: self.findings, left }, outcome)
    }

    async fn ask(&mut self, until_expiry: bool) -> Result<(), Failed> {
        let first = self.answer_to_a_creation().await?;
        self.lists(&first).await?;
        self.names(&first).await?;
        self.ttls().await?;
        self.own_tokens(&first).await?;
        self.connections().await?;
        self.revocation(&first).await?;
        if until_expiry {
            self.expiry().await?;
        }
        Ok(())
    }

    fn tell(&mut self, question: &'static str, rotad: &'static str, found: Vec<String>) {
        self.findings.push(Finding { question, found, rotad });
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("{}-{}", self.prefix, self.names)
    }

    async fn call(
        &self,
        operation: Operation,
        method: Method,
        id: &str,
        body: Option<Value>,
        bearer: Option<&Secret>,
    ) -> Result<Reply, Failed> {
        let (answer, admin) = self.client.plainly(operation, self.account, method, id, body, bearer).await?;
        let told = told(&answer, &[Some(&admin), bearer]);
        let mut body = read(&answer);
        let value = body.remove("token").and_then(|value| match value {
            Value::String(value) => Some(Secret::new(value)),
            _ => None,
        });
        Ok(Reply { told, status: answer.status, body, value })
    }

    /// Asks for a token with these fields; what came of it is revoked in the end.
    async fn create(&mut self, fields: Value, bearer: Option<&Secret>) -> Result<(Reply, Option<Made>), Failed> {
        let name = fields["name"].as_str().unwrap_or_default().to_owned();
        let mut reply = self.call(Operation::Issue, Method::POST, "", Some(fields), bearer).await?;
        let id = TokenId(reply.text("id").to_owned());
        if reply.is_success() && !id.0.is_empty() {
            self.made.push(id.clone());
        }
        let value = reply.value.take();
        let expire_at = reply.text("expire_at").to_owned();
        Ok((reply, value.map(|value| Made { id, name, value, expire_at })))
    }

    async fn plain_token(&mut self) -> Result<Option<Made>, Failed> {
        let fields = json!({ "name": self.name(), "ttl": TTL });
        Ok(self.create(fields, None).await?.1)
    }

    async fn delete(&self, id: &TokenId, bearer: Option<&Secret>) -> Result<Reply, Failed> {
        self.call(Operation::Revoke, Method::DELETE, &id.0, None, bearer).await
    }

    async fn is_listed(&self, id: &TokenId) -> Result<bool, Failed> {
        Ok(self.client.list(self.account).await.complete()?.iter().any(|token| token.id == *id))
    }

    /// How long it takes, in words, until the list has the token, or has it no more.
    async fn until_listed(&self, id: &TokenId, listed: bool, patience: Duration) -> Result<String, Failed> {
        let began = Instant::now();
        while began.elapsed() < patience {
            if self.is_listed(id).await? == listed {
                return Ok(after(began));
            }
            sleep(PAUSE).await;
        }
        Ok(format!("not within {} s", patience.as_secs()))
    }

    async fn answer_to_a_creation(&mut self) -> Result<Made, Failed> {
        let fields = json!({
            "name": self.name(), "ttl": TTL, "token_type": "read_write", "description": "made by rotad probe", "rotad_unknown": true,
        });
        let (reply, made) = self.create(fields, None).await?;
        let mut found = vec![format!("a creation with a field that nobody knows answered {}", reply.told)];
        if reply.is_success() {
            let keys: Vec<&str> = reply.body.keys().map(String::as_str).collect();
            found.push(format!("its fields: {}", keys.join(", ")));
            for key in ["created_ts", "expire_at"] {
                found.push(format!("`{key}` has the form `{}`", form(reply.text(key))));
            }
            found.push(format!("`token_type` is `{}`", presentable(reply.text("token_type"), 32, &[])));
            let is_kept = !reply.text("description").is_empty();
            found.push(format!("`description` is {}", if is_kept { "kept" } else { "dropped" }));
        }
        let Some(made) = made else {
            return Err(Failed::new(Reason::Rejected, format!("no token could be made: the API answered {}", reply.told)));
        };
        found.push(match claims::described(&made.value) {
            Some(claims) => format!("the value is a JWT that claims {claims}"),
            None => "the value is no JWT that can be read".to_owned(),
        });
        let rotad =
            "reads times leniently, compares `token_type` and the time to live with what was asked, and does nothing by a claim";
        self.tell("What does the answer to a creation hold?", rotad, found);
        Ok(made)
    }

    async fn lists(&mut self, first: &Made) -> Result<(), Failed> {
        let appeared = self.until_listed(&first.id, true, LIST_MAX).await?;
        let reply = self.call(Operation::List, Method::GET, "", None, None).await?;
        let keys: Vec<&str> = reply.body.keys().map(String::as_str).collect();
        let found = vec![format!("a new token is listed {appeared}"), format!("the list's fields: {}", keys.join(", "))];
        self.tell(
            "When does a list show a new token, and is it paged?",
            "takes absence from one list as no proof, and follows every page",
            found,
        );
        Ok(())
    }

    async fn names(&mut self, first: &Made) -> Result<(), Failed> {
        let (taken, _) = self.create(json!({ "name": first.name, "ttl": TTL }), None).await?;
        let mut found = vec![format!("the name of a live token again: {}", taken.told)];
        let name = with_slash(&self.name());
        let (slash, made) = self.create(json!({ "name": name, "ttl": TTL }), None).await?;
        found.push(format!("a name with `/`: {}", slash.told));
        if let Some(made) = made {
            self.delete(&made.id, None).await?;
            let (again, _) = self.create(json!({ "name": name, "ttl": TTL }), None).await?;
            found.push(format!("the name of a revoked token again: {}", again.told));
        }
        self.tell("Are names unique, and which are taken?", "gives each token a name of its own, with `/` in it", found);
        Ok(())
    }

    async fn ttls(&mut self) -> Result<(), Failed> {
        let mut found = Vec::new();
        for (what, ttl) in [("a text", json!(TTL.to_string())), ("a fraction", json!(TTL as f64 + 0.5)), ("too short", json!(1))]
        {
            let fields = json!({ "name": self.name(), "ttl": ttl });
            let (reply, made) = self.create(fields, None).await?;
            let end =
                made.map(|made| format!(", and it {}", if made.expire_at.is_empty() { "never expires" } else { "expires" }));
            found.push(format!("{what} (`{ttl}`): {}{}", reply.told, end.unwrap_or_default()));
        }
        let fields = json!({ "name": self.name(), "ttl": TTL, "token_type": "read_scaling" });
        found.push(format!("a read-scaling token: {}", self.create(fields, None).await?.0.told));
        self.tell(
            "Which times to live and types are taken?",
            "sends whole seconds, and refuses a token that came otherwise than asked",
            found,
        );
        Ok(())
    }

    async fn own_tokens(&mut self, first: &Made) -> Result<(), Failed> {
        let value = first.value.duplicate();
        let list = self.call(Operation::Verify, Method::GET, "", None, Some(&value)).await?;
        let fields = json!({ "name": self.name(), "ttl": TTL });
        let (create, made) = self.create(fields, Some(&value)).await?;
        let victim = match made {
            Some(made) => Some(made),
            None => self.plain_token().await?,
        };
        let mut found = vec![format!("list: {}", list.told), format!("create: {}", create.told)];
        if let Some(victim) = victim {
            found.push(format!("revoke: {}", self.delete(&victim.id, Some(&value)).await?.told));
        }
        let rotad = "takes 200 and 403 with `FORBIDDEN` for a list as proof of a new token, and 401 as disproof";
        self.tell("What may the account do with its own tokens?", rotad, found);
        Ok(())
    }

    /// At the Postgres endpoint, where one is configured.
    async fn connections(&mut self) -> Result<(), Failed> {
        let question = "What does the Postgres endpoint say, does a session survive its token, and is a first connection needed?";
        let rotad = "promises nothing of open sessions; `verify = \"connect\"` gives a read/write token up only if the API refuses it too; \
             connects to an account once before its first read-scaling token, and takes the endpoint for enough";
        let Some(wire) = self.client.wire() else {
            self.tell(question, rotad, vec!["the organization has no `postgres`, so it was not asked".to_owned()]);
            return Ok(());
        };
        let mut found = Vec::new();
        // First, as it may be the account's first connection that comes after it.
        let fields = json!({ "name": self.name(), "ttl": TTL, "token_type": "read_scaling" });
        let scaling = self.create(fields, None).await?.1;
        found.extend(self.as_scaling("before this probe connected with a read/write one", scaling.as_ref()).await);
        let Some(made) = self.plain_token().await? else { return Ok(()) };
        let wrong = Secret::new("not-a-token".to_owned());
        for (what, value) in [("a live token", &made.value), ("what is no token", &wrong)] {
            let outcome = self.client.verify_by_connecting(self.account, TokenType::ReadWrite, value).await;
            found.push(format!("{what}: {}", verified(&outcome)));
        }
        found.extend(self.as_scaling("after it", scaling.as_ref()).await);
        match wire.hold(self.account, &made.value).await {
            Err(failed) => found.push(format!("no session could be held open: {failed}")),
            Ok(mut held) => {
                self.delete(&made.id, None).await?;
                let began = Instant::now();
                while began.elapsed() < EFFECT_MAX && held.answers().await {
                    sleep(PAUSE).await;
                }
                let survived = began.elapsed() >= EFFECT_MAX;
                let ended =
                    if survived { format!("answers {} s later", EFFECT_MAX.as_secs()) } else { format!("ends {}", after(began)) };
                found.push(format!("a session that was open when its token was revoked {ended}"));
            }
        }
        let outcome = self.client.verify_by_connecting(self.account, TokenType::ReadWrite, &made.value).await;
        found.push(format!("the revoked token: {}", verified(&outcome)));
        self.tell(question, rotad, found);
        Ok(())
    }

    /// Whether a read-scaling token works at this moment.
    async fn as_scaling(&self, when: &str, made: Option<&Made>) -> Option<String> {
        let outcome = self.client.verify_by_connecting(self.account, TokenType::ReadScaling, &made?.value).await;
        Some(format!("a read-scaling token {when}: {}", verified(&outcome)))
    }

    async fn revocation(&mut self, first: &Made) -> Result<(), Failed> {
        let mut found = vec![format!("a revocation: {}", self.delete(&first.id, None).await?.told)];
        let began = Instant::now();
        let mut last = String::new();
        let bitten = loop {
            let reply = self.call(Operation::Verify, Method::GET, "", None, Some(&first.value)).await?;
            last = if reply.status == 401 { reply.told } else { last };
            if !last.is_empty() {
                break after(began);
            }
            if began.elapsed() >= EFFECT_MAX {
                break format!("not within {} s", EFFECT_MAX.as_secs());
            }
            sleep(PAUSE).await;
        };
        found.push(format!("the API refuses the token {bitten}{}", if last.is_empty() { last } else { format!(": {last}") }));
        found.push(format!("the list lacks it {}", self.until_listed(&first.id, false, EFFECT_MAX).await?));
        found.push(format!("a second revocation: {}", self.delete(&first.id, None).await?.told));
        found.push(format!("an id that no token has: {}", self.delete(&TokenId(NO_ID.to_owned()), None).await?.told));
        let rotad = "takes 404 with `NOT_FOUND`, and nothing else, as proof that a token is gone";
        self.tell("How fast does a revocation take hold, and what does a second one answer?", rotad, found);
        Ok(())
    }

    async fn expiry(&mut self) -> Result<(), Failed> {
        let Some(made) = self.plain_token().await? else { return Ok(()) };
        let gone = self.until_listed(&made.id, false, Duration::from_secs(TTL) + EXPIRY_MAX).await?;
        let mut found = vec![format!("a token of {TTL} s leaves the list {gone}")];
        let reply = self.call(Operation::Verify, Method::GET, "", None, Some(&made.value)).await?;
        found.push(format!("the API says to it: {}", reply.told));
        found.push(format!("a revocation of the expired id: {}", self.delete(&made.id, None).await?.told));
        let (again, _) = self.create(json!({ "name": made.name, "ttl": TTL }), None).await?;
        found.push(format!("the name of an expired token again: {}", again.told));
        self.tell(
            "What becomes of an expired token?",
            "goes by `expire_at`, and by no answer to a revocation of what has expired",
            found,
        );
        Ok(())
    }

    /// Revokes what was made, and whatever else has a name of this inquiry: a creation whose answer was lost. A list may
    /// lag, so it is looked at until it shows nothing of ours.
    async fn clean_up(&mut self) -> Vec<TokenId> {
        let mut left = std::mem::take(&mut self.made);
        let began = Instant::now();
        loop {
            let mut failed = Vec::new();
            for id in left {
                if self.client.revoke(self.account, &id).await != RevokeOutcome::Gone {
                    failed.push(id);
                }
            }
            left = failed;
            let is_listed = match self.client.list(self.account).await {
                ListOutcome::Complete(tokens) => {
                    let strays = tokens.into_iter().filter(|token| token.name.as_deref().is_some_and(|name| self.is_ours(name)));
                    let strays: Vec<TokenId> = strays.map(|token| token.id).filter(|id| !left.contains(id)).collect();
                    let any = !strays.is_empty();
                    left.extend(strays);
                    any
                }
                ListOutcome::Failed(_) => true,
            };
            if (left.is_empty() && !is_listed) || began.elapsed() >= LIST_MAX {
                return left;
            }
            sleep(PAUSE).await;
        }
    }

    fn is_ours(&self, name: &str) -> bool {
        name.starts_with(&self.prefix) || name.starts_with(&with_slash(&self.prefix))
    }
}

/// The same name with the character in it that is asked about.
fn with_slash(name: &str) -> String {
    name.replacen("rotad-probe-", "rotad-probe/", 1)
}

fn after(began: Instant) -> String {
    format!("after {:.1} s", began.elapsed().as_secs_f64())
}

fn verified(outcome: &VerifyOutcome) -> String {
    match outcome {
        VerifyOutcome::Verified => "let in".to_owned(),
        VerifyOutcome::Disproved(failed) | VerifyOutcome::Failed(failed) => failed.to_string(),
    }
}

/// Status, code and message of an answer.
fn told(answer: &Answer, known: &[Option<&Secret>]) -> String {
    let known: Vec<&Secret> = known.iter().flatten().copied().collect();
    format!("{}{}", answer.status, api_error(answer).words(&known))
}

/// The body's fields; none where it is no object.
fn read(answer: &Answer) -> BTreeMap<String, Value> {
    let read = answer.body.as_ref().ok().and_then(|body| serde_json::from_slice(body).ok());
    read.map(|Object(fields)| fields).unwrap_or_default()
}

/// A time with its digits as `0`: its form and nothing else.
fn form(text: &str) -> String {
    let form: String = text.chars().take(40).map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    if form.is_empty() { "(absent)".to_owned() } else { form }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_time_tells_no_time() {
        assert_eq!(form("2026-11-21T23:00:00.123Z"), "0000-00-00T00:00:00.000Z");
        assert_eq!(form(""), "(absent)");
    }
}
