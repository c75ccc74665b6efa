//! What is counted of the requests to the API: closed sets, since they become metric labels.

/// What a request to the API was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `POST /v1/users/{username}/tokens`
    Issue,
    /// `GET /v1/users/{username}/tokens`, one page
    List,
    /// `DELETE /v1/users/{username}/tokens/{token_id}`
    Revoke,
    /// `GET /v1/users/{username}/tokens` with the new token as the caller
    Verify,
    /// `GET /v1/users`, one page
    ListUsers,
    /// `POST /v1/users`
    CreateAccount,
    /// `DELETE /v1/users/{username}`
    DeleteAccount,
    /// `GET /v1/users/{username}/instances`
    Ducklings,
    /// `PUT /v1/users/{username}/instances`
    SetDucklings,
    /// `GET /v1/active_accounts`
    ActiveAccounts,
}

impl Operation {
    pub const ALL: [Self; 10] = [
        Self::Issue,
        Self::List,
        Self::Revoke,
        Self::Verify,
        Self::ListUsers,
        Self::CreateAccount,
        Self::DeleteAccount,
        Self::Ducklings,
        Self::SetDucklings,
        Self::ActiveAccounts,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issue => "issue",
            Self::List => "list",
            Self::Revoke => "revoke",
            Self::Verify => "verify",
            Self::ListUsers => "list_users",
            Self::CreateAccount => "create_account",
            Self::DeleteAccount => "delete_account",
            Self::Ducklings => "ducklings",
            Self::SetDucklings => "set_ducklings",
            Self::ActiveAccounts => "active_accounts",
        }
    }
}

/// How a request ended: a status that the API is known to answer with, the class of any other, or
/// why there is no status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    Ok200,
    NoContent204,
    Other2xx,
    Redirect3xx,
    BadRequest400,
    Unauthorized401,
    Forbidden403,
    NotFound404,
    Conflict409,
    TooManyRequests429,
    Other4xx,
    Internal500,
    BadGateway502,
    Unavailable503,
    GatewayTimeout504,
    Other5xx,
    /// No connection was made: nothing was sent.
    Connect,
    /// No whole answer within the time limits.
    Timeout,
    /// The connection broke before the answer was whole, or what came was not HTTP.
    Broken,
}

impl Code {
    pub const ALL: [Self; 19] = [
        Self::Ok200,
        Self::NoContent204,
        Self::Other2xx,
        Self::Redirect3xx,
        Self::BadRequest400,
        Self::Unauthorized401,
        Self::Forbidden403,
        Self::NotFound404,
        Self::Conflict409,
        Self::TooManyRequests429,
        Self::Other4xx,
        Self::Internal500,
        Self::BadGateway502,
        Self::Unavailable503,
        Self::GatewayTimeout504,
        Self::Other5xx,
        Self::Connect,
        Self::Timeout,
        Self::Broken,
    ];

    /// The code for an HTTP status; a status outside of 200 to 499 that is not known is `5xx`'s kin.
    pub fn of_status(status: u16) -> Self {
        match status {
            200 => Self::Ok200,
            204 => Self::NoContent204,
            201..=299 => Self::Other2xx,
            300..=399 => Self::Redirect3xx,
            400 => Self::BadRequest400,
            401 => Self::Unauthorized401,
            403 => Self::Forbidden403,
            404 => Self::NotFound404,
            409 => Self::Conflict409,
            429 => Self::TooManyRequests429,
            402..=499 => Self::Other4xx,
            500 => Self::Internal500,
            502 => Self::BadGateway502,
            503 => Self::Unavailable503,
            504 => Self::GatewayTimeout504,
            _ => Self::Other5xx,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok200 => "200",
            Self::NoContent204 => "204",
            Self::Other2xx => "2xx",
            Self::Redirect3xx => "3xx",
            Self::BadRequest400 => "400",
            Self::Unauthorized401 => "401",
            Self::Forbidden403 => "403",
            Self::NotFound404 => "404",
            Self::Conflict409 => "409",
            Self::TooManyRequests429 => "429",
            Self::Other4xx => "4xx",
            Self::Internal500 => "500",
            Self::BadGateway502 => "502",
            Self::Unavailable503 => "503",
            Self::GatewayTimeout504 => "504",
            Self::Other5xx => "5xx",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
        }
    }
}

/// Is told of every request that went out, or tried to.
pub trait Observer: Send + Sync {
    /// `seconds` from the start of the request to the end of its answer, waiting for a slot not included.
    fn request(&self, operation: Operation, code: Code, seconds: f64);
}

/// Watches nothing.
#[derive(Debug)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn request(&self, _: Operation, _: Code, _: f64) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_code_and_every_code_a_label_of_its_own() {
        for status in 100..=999 {
            let code = Code::of_status(status);
            let label = code.as_str();
            let class = format!("{}xx", status / 100);
            assert!(label == status.to_string() || label == class || !(200..600).contains(&status), "{status}: {label}");
        }
        let labels: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(labels.len(), Code::ALL.len());
    }
}
