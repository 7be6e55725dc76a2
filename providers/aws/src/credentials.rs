//! Why there are no credentials: refused, not available in this configuration, or not provided in time.

use std::error::Error as StdError;
use std::fmt::Debug;

use aws_config::imds::client::error::{ImdsError, TokenError};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ConnectorError, ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use encx_core::kms::KmsErrorKind;

use crate::codes::{kind_of_code, kind_of_status};

/// Codes of STS that AWS KMS does not have.
const CODES_OF_STS: &[(&str, KmsErrorKind)] = &[
    ("IDPCommunicationError", KmsErrorKind::Unavailable),
    ("IDPRejectedClaim", KmsErrorKind::AccessDenied),
    ("InvalidIdentityToken", KmsErrorKind::AccessDenied),
    ("MalformedPolicyDocument", KmsErrorKind::Configuration),
    ("PackedPolicyTooLarge", KmsErrorKind::Configuration),
    ("RegionDisabledException", KmsErrorKind::Configuration),
];

/// A failure to get credentials, with a message that contains no token and no request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoCredentials {
    /// `AccessDenied`, `Configuration`, or `Unavailable`, only if a credentials service did not answer.
    pub(crate) kind: KmsErrorKind,
    pub(crate) said: Vec<String>,
}

impl NoCredentials {
    /// Finds the failure of the credential chain behind an error; `None` if there is none.
    pub(crate) fn behind(error: &(dyn StdError + 'static)) -> Option<Self> {
        let mut chain = std::iter::successors(Some(error), |&error| error.source());
        let first = chain.find_map(|error| error.downcast_ref::<CredentialsError>())?;
        let mut found = Self {
            kind: KmsErrorKind::Configuration,
            said: Vec::new(),
        };
        let mut next: Option<&(dyn StdError + 'static)> = Some(first);
        // The innermost error with information decides: one profile may take its credentials from another.
        while let Some(error) = next {
            next = error.source();
            found.read(error);
        }
        Some(found)
    }

    fn read(&mut self, error: &(dyn StdError + 'static)) {
        if let Some(error) = error.downcast_ref::<CredentialsError>() {
            self.said.push(error.to_string());
            self.of_chain(error);
        } else if let Some(error) = error.downcast_ref::<SdkError<AssumeRoleError, HttpResponse>>() {
            // The request has an external id and no token; a refusal names the role that may not be assumed.
            self.of_sts(error, true);
        } else if let Some(error) =
            error.downcast_ref::<SdkError<AssumeRoleWithWebIdentityError, HttpResponse>>()
        {
            // The request has a token, which a message may repeat.
            self.of_sts(error, false);
        } else if let Some(error) = error.downcast_ref::<SdkError<TokenError, HttpResponse>>() {
            self.of_service(error, "EC2's metadata service");
        } else if let Some(error) = error.downcast_ref::<SdkError<CredentialsError, HttpResponse>>() {
            self.of_service(error, "the container's credentials service");
        } else if let Some(ImdsError::ErrorResponse(refusal)) = error.downcast_ref::<ImdsError>() {
            self.of_status(refusal.response().status().as_u16(), "EC2's metadata service");
        } else if error.is::<ConnectorError>() {
            self.kind = KmsErrorKind::Unavailable;
        } else if let Some(error) = error.downcast_ref::<std::io::Error>() {
            self.said.push(error.to_string());
        }
    }

    fn of_chain(&mut self, error: &CredentialsError) {
        let source = StdError::source(error);
        match error {
            CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => {
                self.kind = KmsErrorKind::Configuration;
                self.said.extend(source.map(ToString::to_string));
            }
            CredentialsError::ProviderError(_) => {
                self.kind = KmsErrorKind::Configuration;
                // The SDK has no type for this error, only a text.
                let status = source.map(ToString::to_string).and_then(|text| status_in(&text));
                if let Some(status) = status {
                    self.of_status(status, "the container's credentials service");
                }
            }
            // An unreadable answer is not a refusal, and neither is silence.
            _ => self.kind = KmsErrorKind::Unavailable,
        }
    }

    fn of_sts<E>(&mut self, error: &SdkError<E, HttpResponse>, is_message_shown: bool)
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let (Some(code), SdkError::ServiceError(answer)) = (error.code(), error) else {
            return self.of_service(error, "STS");
        };
        let known = CODES_OF_STS.iter().find(|(known, _)| *known == code);
        let known = known.map(|(_, kind)| *kind).or_else(|| kind_of_code(code));
        let status = answer.raw().status().as_u16();
        self.kind = match known {
            Some(kind) => of_credentials(kind),
            // As for AWS KMS: an answer without a request id may come from a proxy.
            None if error.request_id().is_some() => of_credentials(kind_of_status(status)),
            None => return self.of_service(error, "STS"),
        };
        self.said.push(format!("STS refused: {code}"));
        if is_message_shown {
            self.said.extend(error.message().map(str::to_owned));
        }
    }

    /// Reads a failure of a credentials service that is not a refusal with a code.
    fn of_service<E: Debug>(&mut self, error: &SdkError<E, HttpResponse>, who: &str) {
        self.kind = match error {
            SdkError::ConstructionFailure(_) => KmsErrorKind::Configuration,
            SdkError::ServiceError(answer) if who != "STS" => {
                return self.of_status(answer.raw().status().as_u16(), who);
            }
            SdkError::TimeoutError(_) => {
                self.said.push(format!("{who} did not answer in time"));
                KmsErrorKind::Unavailable
            }
            SdkError::ResponseError(_) | SdkError::ServiceError(_) => {
                self.said
                    .push(format!("something else than {who} answered in its place"));
                KmsErrorKind::Unavailable
            }
            _ => {
                self.said.push(format!("{who} could not be reached"));
                KmsErrorKind::Unavailable
            }
        };
    }

    fn of_status(&mut self, status: u16, who: &str) {
        self.kind = of_credentials(kind_of_status(status));
        self.said
            .push(format!("{who} answered with HTTP status {status}"));
    }
}

/// Maps an error of a credentials service to its meaning for the caller without credentials.
fn of_credentials(kind: KmsErrorKind) -> KmsErrorKind {
    match kind {
        KmsErrorKind::AccessDenied => KmsErrorKind::AccessDenied,
        KmsErrorKind::Throttled | KmsErrorKind::Unavailable => KmsErrorKind::Unavailable,
        _ => KmsErrorKind::Configuration,
    }
}

/// Reads the HTTP status of a refusal by the container's credentials service.
fn status_in(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("Non-success status from HTTP credential provider: ")?;
    let digits: String = rest
        .chars()
        .skip_while(|character| !character.is_ascii_digit())
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(error: &CredentialsError) -> NoCredentials {
        NoCredentials::behind(error).unwrap()
    }

    #[test]
    fn only_silence_is_an_outage() {
        let missing = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        for (error, kind) in [
            (CredentialsError::not_loaded("none"), KmsErrorKind::Configuration),
            (
                CredentialsError::invalid_configuration("wrong"),
                KmsErrorKind::Configuration,
            ),
            (
                CredentialsError::provider_error("a process ended with 1"),
                KmsErrorKind::Configuration,
            ),
            (
                CredentialsError::provider_error(missing),
                KmsErrorKind::Configuration,
            ),
            (
                CredentialsError::provider_error(ConnectorError::io("reset".into())),
                KmsErrorKind::Unavailable,
            ),
            (
                CredentialsError::provider_timed_out(std::time::Duration::from_secs(5)),
                KmsErrorKind::Unavailable,
            ),
            (CredentialsError::unhandled("no JSON"), KmsErrorKind::Unavailable),
        ] {
            let text = format!("{error:?}");
            assert_eq!(read(&error).kind, kind, "{text}");
        }
        let status = |status: &str| {
            let text = format!("Non-success status from HTTP credential provider: {status}");
            read(&CredentialsError::provider_error(text)).kind
        };
        assert_eq!(status("403"), KmsErrorKind::AccessDenied);
        assert_eq!(status("StatusCode(404)"), KmsErrorKind::Configuration);
        assert_eq!(status("StatusCode(503)"), KmsErrorKind::Unavailable);
    }

    #[test]
    fn the_deepest_failure_decides_and_what_a_process_said_is_left_out() {
        let inner = CredentialsError::provider_error(ConnectorError::timeout("late".into()));
        assert_eq!(
            read(&CredentialsError::provider_error(inner)).kind,
            KmsErrorKind::Unavailable
        );
        let process = read(&CredentialsError::provider_error("Stderr: hunter2"));
        assert!(!format!("{process:?}").contains("hunter2"));
        assert!(NoCredentials::behind(&std::io::Error::other("x")).is_none());
    }
}
