//! What callers see of an error, and what they do not.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use encx::Error;
use encx::record::RecordError;
use serde_json::json;

/// Why a request failed. Callers see only [`answer`](ApiError::answer); the rest goes to the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error(transparent)]
    Crypto(#[from] Error),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("{0}")]
    Invalid(&'static str),
    #[error("there is no such user")]
    NoSuchUser,
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("the email or the password is wrong")]
    WrongPassword,
}

impl ApiError {
    /// Chooses the answer. It contains none of the error's text, which names keys, KEKs and tables.
    fn answer(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Crypto(error) => answer_to(error),
            Self::Record(error) if error.is_retryable() => TRY_AGAIN,
            Self::Record(error) => error
                .failures()
                .first()
                .map_or(INTERNAL, |first| answer_to(&first.error)),
            Self::Database(sqlx::Error::PoolTimedOut | sqlx::Error::Io(_)) => TRY_AGAIN,
            Self::Database(_) => INTERNAL,
            Self::Invalid(what) => (StatusCode::UNPROCESSABLE_ENTITY, what),
            Self::NoSuchUser => (StatusCode::NOT_FOUND, "there is no such user"),
            Self::WrongPassword => (StatusCode::UNAUTHORIZED, "the email or the password is wrong"),
        }
    }
}

const INTERNAL: (StatusCode, &str) = (StatusCode::INTERNAL_SERVER_ERROR, "internal error");
const TRY_AGAIN: (StatusCode, &str) = (StatusCode::SERVICE_UNAVAILABLE, "try again");

fn answer_to(error: &Error) -> (StatusCode, &'static str) {
    match error {
        error if error.is_retryable() => TRY_AGAIN,
        Error::NoKeys => (StatusCode::NOT_FOUND, "there is no such tenant"),
        Error::Destroyed { .. } | Error::Shredded => (StatusCode::GONE, "this tenant was deleted"),
        Error::AlreadyExists => (StatusCode::CONFLICT, "this tenant exists already"),
        Error::Context(_) => (StatusCode::UNPROCESSABLE_ENTITY, "this is no name of a tenant"),
        Error::Index(_) => (StatusCode::UNPROCESSABLE_ENTITY, "this is no email"),
        Error::Password(_) => (StatusCode::UNPROCESSABLE_ENTITY, "this password is too long"),
        // An operator suspended the key.
        Error::Suspended { .. } | Error::NoActiveKey => {
            (StatusCode::SERVICE_UNAVAILABLE, "this tenant is suspended")
        }
        // Mainly `Decrypt`, `UnknownKey` and `KeyMismatch`: the database was changed.
        _ => INTERNAL,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, what) = self.answer();
        if status.is_server_error() {
            // encx's errors hold no plaintext and no key.
            tracing::error!(error = %self, %status, "a request failed");
        }
        let mut response = (status, Json(json!({ "error": what }))).into_response();
        if (status, what) == TRY_AGAIN {
            let seconds = HeaderValue::from_static("5");
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}
