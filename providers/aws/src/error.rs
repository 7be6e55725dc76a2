//! How AWS KMS fails, and the remedy for each failure.

use std::error::Error as StdError;
use std::fmt;

use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;
use encx_core::key::KekId;
use encx_core::kms::{KmsError, KmsErrorKind, KmsOperation};

use crate::arn::KeyName;
use crate::codes::{kind_of_code, kind_of_status};
use crate::credentials::NoCredentials;
use crate::endpoint::Endpoint;
use crate::proxy::Proxy;

pub(crate) const PROVIDER: &str = "aws-kms";

/// What AWS KMS, or the connection to it, reported: the `source()` of this crate's [`KmsError`]s.
///
/// It holds AWS's code, request id and shortened message. It holds no request and no answer, because either may contain
/// a data key, and no error of the SDK, because some show a whole request. For `Encrypt`, the one request that carries
/// a data key, it drops the message, which may repeat the request. It has no `source()`.
pub struct AwsError {
    code: Option<String>,
    message: Option<String>,
    request_id: Option<String>,
    status: Option<u16>,
    cause: Cause,
    /// Why no answer came, in the words of the operating system or the credential chain.
    detail: Option<String>,
}

/// Whether an answer's message is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The request carries a data key, which the message may repeat.
    Dropped,
    Kept,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The request could not be built, and was not sent.
    Construction,
    /// There are no credentials: refused, not available in this configuration, or not provided in time.
    Credentials(KmsErrorKind),
    /// No answer came.
    Dispatch,
    /// The answer did not come from AWS KMS, or cannot be read.
    Response,
    /// AWS KMS refused.
    Service,
    /// The answer did not come in time.
    Timeout,
}

impl AwsError {
    /// Reads an error of the SDK; `was_sent` tells whether a request was sent at all.
    pub(crate) fn new<E>(error: &SdkError<E, HttpResponse>, message: Message, was_sent: bool) -> Self
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let request_id = error.request_id().and_then(parse_name).map(str::to_owned);
        // A proxy's JSON may contain a code too. AWS KMS sends a request id with its codes, including future ones.
        let code = error
            .code()
            .and_then(parse_name)
            .filter(|code| request_id.is_some() || kind_of_code(code).is_some())
            .map(str::to_owned);
        let status = error.raw_response().map(|response| response.status().as_u16());
        let cause = match error {
            SdkError::ConstructionFailure(_) => Cause::Construction,
            SdkError::DispatchFailure(failure) if failure.is_timeout() => Cause::Timeout,
            SdkError::ResponseError(_) => Cause::Response,
            SdkError::ServiceError(_) if code.is_none() => Cause::Response,
            SdkError::ServiceError(_) => Cause::Service,
            SdkError::TimeoutError(_) => Cause::Timeout,
            _ => Cause::Dispatch,
        };
        let (cause, detail) = match NoCredentials::behind(error) {
            Some(none) => (Cause::Credentials(none.kind), Some(shown(&none.said.join(": ")))),
            // Before a request is sent, only credentials can time out.
            None if cause == Cause::Timeout && !was_sent => (
                Cause::Credentials(KmsErrorKind::Unavailable),
                Some("STS, or another service that gives them, did not answer in time".to_owned()),
            ),
            None => (cause, detail(error, message)),
        };
        // Without a code it is not a refusal by AWS, and the text may be anything.
        let message = match message {
            Message::Dropped => None,
            Message::Kept => code.as_ref().and(error.message()).map(shown),
        };
        Self {
            code,
            message,
            request_id,
            status,
            cause,
            detail,
        }
    }

    /// Returns AWS's error code, such as `AccessDeniedException`, if AWS answered.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// Returns AWS's message, if AWS answered: at most 300 characters, without long runs of characters that could be an
    /// encoded key. `None` if the request carried a data key.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Returns AWS's request id, for CloudTrail and AWS Support.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// Returns the HTTP status of the answer, if one came.
    #[must_use]
    pub fn http_status(&self) -> Option<u16> {
        self.status
    }

    /// Tells whether the error comes from AWS KMS itself.
    pub(crate) fn is_answer(&self) -> bool {
        self.cause == Cause::Service
    }

    /// Says what to do about missing credentials; `None` for other errors. No permission on a KEK would help.
    pub(crate) fn credentials_advice(&self) -> Option<&'static str> {
        let Cause::Credentials(kind) = self.cause else {
            return None;
        };
        Some(match kind {
            KmsErrorKind::AccessDenied => {
                "this is about the role to assume, not about the KEK: its trust policy must name this caller and, where it demands \
                 them, the external id (`external_id` of the profile) or the service account; AWS_ROLE_ARN and the profile must name \
                 that role; and the metadata service must be allowed to answer this process"
            }
            KmsErrorKind::Unavailable => {
                "the service that gives credentials (STS, or the metadata service of EC2, ECS or EKS) did not answer: look at the way \
                 there, a proxy, a VPC endpoint for STS, the metadata service's hop limit in containers"
            }
            _ => {
                "AWS's credential chain found none that can be used: set a role, a profile or the environment's \
                 AWS_ACCESS_KEY_ID; what AWS_PROFILE, AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN name must exist and be readable"
            }
        })
    }

    /// Returns the kind that callers act on.
    pub(crate) fn kind(&self) -> KmsErrorKind {
        match self.cause {
            Cause::Construction => KmsErrorKind::Configuration,
            Cause::Credentials(kind) => kind,
            // Regardless of its status: an answer that AWS KMS did not write is not a refusal by AWS KMS.
            Cause::Dispatch | Cause::Response | Cause::Timeout => KmsErrorKind::Unavailable,
            Cause::Service => self
                .code()
                .and_then(kind_of_code)
                .unwrap_or_else(|| self.status.map_or(KmsErrorKind::Unavailable, kind_of_status)),
        }
    }
}

impl fmt::Display for AwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.cause {
            Cause::Construction => "the request could not be built",
            Cause::Credentials(KmsErrorKind::AccessDenied) => "AWS credentials were refused",
            Cause::Credentials(KmsErrorKind::Unavailable) => "no AWS credentials came",
            Cause::Credentials(_) => "there are no usable AWS credentials",
            Cause::Dispatch => "AWS KMS could not be reached",
            Cause::Response => "what answered was not AWS KMS, or its answer could not be read",
            Cause::Service => "AWS KMS refused",
            Cause::Timeout => "AWS KMS did not answer in time",
        })?;
        if let Some(code) = &self.code {
            write!(f, ": {code}")?;
        }
        if let Some(status) = self.status {
            write!(f, ", HTTP status {status}")?;
        }
        if let Some(id) = &self.request_id {
            write!(f, ", request id {id}")?;
        }
        for text in [&self.message, &self.detail].into_iter().flatten() {
            write!(f, ": {text}")?;
        }
        Ok(())
    }
}

impl StdError for AwsError {}

impl fmt::Debug for AwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        encx_core::causes::debug_error(self, f)
    }
}

/// Parses an error code or a request id. A long or unusual text is not from AWS, and could contain a key.
fn parse_name(text: &str) -> Option<&str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_short = (1..ENCODED).contains(&text.len());
    Some(text).filter(|text| is_short && text.bytes().all(is_plain))
}

/// The most characters of AWS's message that are shown.
const MESSAGE: usize = 300;

/// The shortest run of characters that is removed from a message: 32 bytes take 43 in base64, and 64 in hex.
const ENCODED: usize = 40;

/// Makes a text fit to be shown: one short line, without anything that could be a key that AWS repeats.
fn shown(message: &str) -> String {
    let (mut line, mut run) = (String::new(), String::new());
    let end = |line: &mut String, run: &mut String| {
        line.push_str(if run.len() < ENCODED { run.as_str() } else { "…" });
        run.clear();
    };
    for character in message.chars() {
        if character.is_ascii_alphanumeric() || matches!(character, '+' | '/' | '=') {
            run.push(character);
            continue;
        }
        end(&mut line, &mut run);
        line.push(if character.is_control() { ' ' } else { character });
    }
    end(&mut line, &mut run);
    match line.char_indices().nth(MESSAGE - 1) {
        Some((at, last)) if at + last.len_utf8() < line.len() => {
            format!("{}…", line.get(..at).unwrap_or_default())
        }
        _ => line,
    }
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// Says why no answer came, in the words of the operating system or TLS, which never see a request.
///
/// Other errors may show a request. So may an I/O error of a caller's own HTTP client: if messages are dropped, only
/// those of the operating system are used.
fn detail(error: &(dyn StdError + 'static), message: Message) -> Option<String> {
    let error = chain(error).find_map(|error| error.downcast_ref::<std::io::Error>())?;
    let text = match message {
        Message::Dropped if error.raw_os_error().is_none() => error.kind().to_string(),
        _ => error.to_string(),
    };
    Some(shown(&text)).filter(|text| !text.is_empty())
}

/// The operation, its KEK and its region, which an error states besides AWS's message.
#[derive(Clone, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) operation: KmsOperation,
    /// The KEK, as the caller named it.
    pub(crate) kek: &'a KekId,
    /// The source KEK of a rewrap.
    pub(crate) from: Option<&'a KekId>,
    /// The region whose KMS was called.
    pub(crate) region: &'a str,
    /// Its endpoint, unless it is AWS's own.
    pub(crate) endpoint: Option<&'a Endpoint>,
    /// The proxy on the way there.
    pub(crate) proxy: Option<Proxy>,
}

impl Asked<'_> {
    /// Says that AWS KMS, or the connection to it, failed.
    pub(crate) fn failed(&self, error: AwsError) -> KmsError {
        let kind = error.kind();
        self.error(kind, self.advice(kind, &error)).with_source(error)
    }

    /// Says that an answer must not be trusted.
    pub(crate) fn refused(&self, kind: KmsErrorKind, why: impl Into<String>) -> KmsError {
        self.error(kind, why)
    }

    /// Says that an answer is incomplete, so AWS KMS cannot have written it.
    pub(crate) fn not_answered(&self, what: &str) -> KmsError {
        let why = format!("{what}; {}", self.something_else_answered());
        self.error(KmsErrorKind::Unavailable, why)
    }

    fn something_else_answered(&self) -> String {
        format!(
            "in place of KMS in region `{}`{} something else answered, or its answer was cut short: look for a proxy, a \
             firewall or a sign-in page on the way, and for a wrong endpoint",
            self.region,
            self.at()
        )
    }

    fn error(&self, kind: KmsErrorKind, advice: impl Into<String>) -> KmsError {
        KmsError::new(kind, PROVIDER, self.operation, self.kek).with_advice(advice)
    }

    fn advice(&self, kind: KmsErrorKind, error: &AwsError) -> String {
        let region = self.region;
        match (kind, error.code(), error.cause) {
            (_, _, Cause::Credentials(_)) => error.credentials_advice().unwrap_or_default().to_owned(),
            (_, _, Cause::Construction) => format!("check the region `{region}` and the endpoint{}", self.at()),
            (
                KmsErrorKind::AccessDenied,
                Some(
                    "ExpiredToken"
                    | "ExpiredTokenException"
                    | "InvalidClientTokenId"
                    | "MissingAuthenticationToken"
                    | "MissingAuthenticationTokenException"
                    | "UnrecognizedClientException",
                ),
                _,
            ) => format!(
                "AWS does not accept these credentials: expired, deleted, or of an account that has not enabled region \
                 `{region}`"
            ),
            (KmsErrorKind::AccessDenied, ..) => format!(
                "the caller needs {}; likely causes: no identity policy allows it, the key policy does not let \
                 that account's policies decide, a condition on the encryption context or a VPC endpoint does not match, \
                 or a grant with EncryptionContextEquals (`encx:key` differs per data key, so a grant must use EncryptionContextSubset)",
                self.actions()
            ),
            (KmsErrorKind::NotFound, ..) => self.where_is_it(),
            (
                _,
                Some(
                    "IncompleteSignature"
                    | "IncompleteSignatureException"
                    | "InvalidSignatureException"
                    | "SignatureDoesNotMatch",
                ),
                _,
            ) => format!(
                "the request was signed for region `{region}`{}, and was refused: does the endpoint belong to \
                 another region, is the clock wrong, or the secret access key?",
                self.named_region()
            ),
            (_, Some("RequestExpired"), _) => "set the clock of this machine".to_owned(),
            (_, Some("InvalidKeyUsageException"), _) => {
                "a KEK has to be a symmetric key for ENCRYPT_DECRYPT".to_owned()
            }
            (_, Some("DisabledException"), _) => {
                "enable the key with `aws kms enable-key`, and find out who disabled it (DisableKey in CloudTrail)".to_owned()
            }
            (KmsErrorKind::KeyState, ..) => {
                "see its state with `aws kms describe-key`: a pending deletion is cancelled with `aws kms cancel-key-deletion` and then \
                 `aws kms enable-key`, as the key is disabled after that; a replica is being created for some seconds"
                    .to_owned()
            }
            (KmsErrorKind::LimitExceeded, ..) => {
                format!("see the quotas of KMS in region `{region}`, and have them raised")
            }
            (KmsErrorKind::Throttled, ..) => format!(
                "the account's request quota in region `{region}` is used up: have it raised, or let the cache keep keys longer"
            ),
            (_, _, Cause::Dispatch | Cause::Timeout) => {
                let region_too = match self.endpoint {
                    Some(_) => "",
                    None => ", and is there such a region (AWS_REGION, the profile, the KEK's ARN)",
                };
                format!(
                    "can this machine reach KMS in region `{region}`{}: the network, a VPC endpoint, its security \
                     group{region_too}?",
                    self.at()
                )
            }
            (_, _, Cause::Response) => self.something_else_answered(),
            (KmsErrorKind::Integrity, Some("IncorrectKeyException"), _) => {
                "it was wrapped by another KEK than its row names".to_owned()
            }
            (KmsErrorKind::Integrity, ..) => {
                "its row was damaged, edited, or copied from another data key or encryption context; put the row back from a \
                 backup, and find out what changed it"
                    .to_owned()
            }
            (_, Some(code), _) => format!("AWS KMS in region `{region}` answered {code}"),
            _ => format!("that was AWS KMS in region `{region}`{}", self.at()),
        }
    }

    /// Names the permissions that the operation needs, and their resource.
    fn actions(&self) -> String {
        let kek = self.kek;
        match self.operation {
            KmsOperation::DescribeKek => format!("kms:DescribeKey on `{kek}`"),
            KmsOperation::GenerateDataKey => format!("kms:GenerateDataKey on `{kek}`"),
            KmsOperation::RewrapKey => match self.from {
                Some(from) => format!("kms:ReEncryptFrom on `{from}` and kms:ReEncryptTo on `{kek}`"),
                None => format!("kms:ReEncryptTo on `{kek}`"),
            },
            KmsOperation::UnwrapKey => format!("kms:Decrypt on `{kek}`"),
            KmsOperation::WrapKey => format!("kms:Encrypt on `{kek}`"),
            _ => format!("permission on `{kek}`"),
        }
    }

    fn where_is_it(&self) -> String {
        let (kek, region) = (self.kek, self.region);
        let at = self.at();
        let mut advice = match KeyName::parse(kek.as_str()) {
            Some(KeyName::Arn(arn)) if arn.region != region => format!(
                "the KEK is named in region `{}`, and region `{region}`{at} was asked: replicate it there, or leave that \
                 region out of `regions`",
                arn.region
            ),
            Some(KeyName::Arn(_)) => {
                format!(
                    "there is no such key in region `{region}`{at}, or the endpoint belongs to another region"
                )
            }
            Some(KeyName::Alias | KeyName::AliasArn { .. }) => format!(
                "there is no such alias in region `{region}`{at}; aliases belong to one account and one region"
            ),
            Some(KeyName::Id { .. }) | None => format!(
                "there is no such key id in region `{region}`{at}; an alias begins with `alias/`, and a key of another \
                 account or region is named by its ARN"
            ),
        };
        if let Some(from) = self.from {
            advice.push_str(&format!("; or it is `{from}` that does not exist"));
        }
        advice
    }

    /// Names the endpoint and the proxy, and what sets them; empty for a direct connection to AWS's own endpoint.
    fn at(&self) -> String {
        let endpoint = self.endpoint.map(|endpoint| format!(" at {endpoint}"));
        let proxy = self.proxy.as_ref().map(|proxy| format!(" {proxy}"));
        let parts: Vec<_> = endpoint.into_iter().chain(proxy).collect();
        parts.join(",")
    }

    fn named_region(&self) -> String {
        match KeyName::parse(self.kek.as_str()) {
            Some(KeyName::Arn(arn)) => format!(" (the KEK's is `{}`){}", arn.region, self.at()),
            _ => self.at(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_short_and_repeats_no_key() {
        let refusal = "User: arn:aws:sts::111122223333:assumed-role/shop/i-0123456789abcdef0 is not authorized to perform: \
                       kms:Decrypt on resource: arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        assert_eq!(shown(refusal), refusal);
        let key = "q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4k=";
        assert_eq!(shown(&format!("Value '{key}'\nfailed")), "Value '…' failed");
        let long = shown(&"ä b ".repeat(1000));
        assert_eq!(long.chars().count(), MESSAGE);
        assert!(long.ends_with('…'));
        let exact = "é ".repeat(MESSAGE / 2);
        assert_eq!(shown(&exact), exact);
    }
}
