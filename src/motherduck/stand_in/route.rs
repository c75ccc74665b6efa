//! Which operation a request means.

use std::collections::BTreeMap;

use axum::http::{Method, Uri};
use serde::{Deserialize, Serialize};

/// The operations of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    CreateUser,
    ListUsers,
    DeleteUser,
    CreateToken,
    ListTokens,
    RevokeToken,
    GetInstances,
    SetInstances,
    ActiveAccounts,
}

/// A request that means something.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub operation: Operation,
    /// The username in the path, decoded.
    pub username: Option<String>,
    /// The token id in the path, decoded.
    pub token_id: Option<String>,
    pub query: BTreeMap<String, String>,
}

pub(super) enum Route {
    Call(Call),
    /// The path exists, with these methods.
    WrongMethod(&'static str),
    /// 404 with the text `Not Found` (observed for a path without a route).
    None,
    /// The path or the query is not properly encoded text.
    Undecodable,
}

pub(super) fn route(method: &Method, uri: &Uri) -> Route {
    use Operation::{
        ActiveAccounts, CreateToken, CreateUser, DeleteUser, GetInstances, ListTokens, ListUsers, RevokeToken, SetInstances,
    };
    let segments: Vec<&str> = uri.path().split('/').skip(1).collect();
    let (methods, allowed, username, token_id): (&[(Method, Operation)], _, _, _) = match segments[..] {
        ["v1", "users"] => (&[(Method::POST, CreateUser), (Method::GET, ListUsers)], "GET, POST", None, None),
        ["v1", "users", name] => (&[(Method::DELETE, DeleteUser)], "DELETE", Some(name), None),
        ["v1", "users", name, "tokens"] => {
            (&[(Method::POST, CreateToken), (Method::GET, ListTokens)], "GET, POST", Some(name), None)
        }
        ["v1", "users", name, "tokens", id] => (&[(Method::DELETE, RevokeToken)], "DELETE", Some(name), Some(id)),
        ["v1", "users", name, "instances"] => {
            (&[(Method::GET, GetInstances), (Method::PUT, SetInstances)], "GET, PUT", Some(name), None)
        }
        ["v1", "active_accounts"] => (&[(Method::GET, ActiveAccounts)], "GET", None, None),
        _ => return Route::None,
    };
    if matches!(username, Some("" | "." | "..")) || matches!(token_id, Some("" | "." | "..")) {
        return Route::None;
    }
    let Some((_, operation)) = methods.iter().find(|(known, _)| known == method) else { return Route::WrongMethod(allowed) };
    let decoded = (username.map(percent_decode), token_id.map(percent_decode), query(uri));
    let (None | Some(Some(_)), None | Some(Some(_)), Some(query)) = &decoded else { return Route::Undecodable };
    let query = query.clone();
    Route::Call(Call { operation: *operation, username: decoded.0.flatten(), token_id: decoded.1.flatten(), query })
}

fn query(uri: &Uri) -> Option<BTreeMap<String, String>> {
    let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((percent_decode(&key.replace('+', " "))?, percent_decode(&value.replace('+', " "))?))
        })
        .collect()
}

/// The text that a percent-encoded one stands for; `None` if that is no text.
fn percent_decode(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(&byte) = bytes.get(index) {
        let (byte, step) = match byte {
            b'%' => (u8::from_str_radix(text.get(index + 1..index + 3)?, 16).ok()?, 3),
            _ => (byte, 1),
        };
        decoded.push(byte);
        index += step;
    }
    String::from_utf8(decoded).ok()
}
