//! The table of AWS's error codes.

use encx_core::kms::KmsErrorKind;

/// What AWS's error codes mean to a caller. The SDK reports a code for modeled and unmodeled errors alike, so both are
/// here; `ThrottlingException`, for example, is unmodeled.
const CODES: &[(&str, KmsErrorKind)] = &[
    // Permission.
    ("AccessDenied", KmsErrorKind::AccessDenied),
    ("AccessDeniedException", KmsErrorKind::AccessDenied),
    ("ExpiredToken", KmsErrorKind::AccessDenied),
    ("ExpiredTokenException", KmsErrorKind::AccessDenied),
    ("InvalidClientTokenId", KmsErrorKind::AccessDenied),
    ("MissingAuthenticationToken", KmsErrorKind::AccessDenied),
    ("MissingAuthenticationTokenException", KmsErrorKind::AccessDenied),
    ("NotAuthorized", KmsErrorKind::AccessDenied),
    ("NotAuthorizedException", KmsErrorKind::AccessDenied),
    ("UnrecognizedClientException", KmsErrorKind::AccessDenied),
    // Requests that can never succeed unchanged.
    ("AlreadyExistsException", KmsErrorKind::Configuration),
    ("DryRunOperationException", KmsErrorKind::Configuration),
    ("IncompleteSignature", KmsErrorKind::Configuration),
    ("IncompleteSignatureException", KmsErrorKind::Configuration),
    ("InvalidAliasNameException", KmsErrorKind::Configuration),
    ("InvalidArnException", KmsErrorKind::Configuration),
    ("InvalidGrantTokenException", KmsErrorKind::Configuration),
    ("InvalidKeyUsageException", KmsErrorKind::Configuration),
    ("InvalidMarkerException", KmsErrorKind::Configuration),
    ("InvalidSignatureException", KmsErrorKind::Configuration),
    ("MalformedPolicyDocumentException", KmsErrorKind::Configuration),
    ("OptInRequired", KmsErrorKind::Configuration),
    ("RequestExpired", KmsErrorKind::Configuration),
    ("SignatureDoesNotMatch", KmsErrorKind::Configuration),
    ("TagException", KmsErrorKind::Configuration),
    ("ValidationError", KmsErrorKind::Configuration),
    ("ValidationException", KmsErrorKind::Configuration),
    // A damaged wrap, another context, another KEK.
    ("IncorrectKeyException", KmsErrorKind::Integrity),
    ("InvalidCiphertextException", KmsErrorKind::Integrity),
    // The state of the KEK.
    ("ConflictException", KmsErrorKind::KeyState),
    ("DisabledException", KmsErrorKind::KeyState),
    ("KMSInvalidStateException", KmsErrorKind::KeyState),
    // Quotas of resources, such as keys of an account. The SDK retries this one; AWS's documentation does not say that
    // waiting helps.
    ("LimitExceededException", KmsErrorKind::LimitExceeded),
    ("NotFoundException", KmsErrorKind::NotFound),
    // Quotas of requests.
    ("RequestLimitExceeded", KmsErrorKind::Throttled),
    ("RequestThrottled", KmsErrorKind::Throttled),
    ("RequestThrottledException", KmsErrorKind::Throttled),
    ("SlowDown", KmsErrorKind::Throttled),
    ("ThrottledException", KmsErrorKind::Throttled),
    ("Throttling", KmsErrorKind::Throttled),
    ("ThrottlingException", KmsErrorKind::Throttled),
    ("TooManyRequestsException", KmsErrorKind::Throttled),
    // Faults of KMS itself.
    ("DependencyTimeoutException", KmsErrorKind::Unavailable),
    ("InternalFailure", KmsErrorKind::Unavailable),
    ("InternalServerError", KmsErrorKind::Unavailable),
    ("KMSInternalException", KmsErrorKind::Unavailable),
    ("KeyUnavailableException", KmsErrorKind::Unavailable),
    ("RequestTimeout", KmsErrorKind::Unavailable),
    ("RequestTimeoutException", KmsErrorKind::Unavailable),
    ("ServiceUnavailable", KmsErrorKind::Unavailable),
    ("ServiceUnavailableException", KmsErrorKind::Unavailable),
    ("UnsupportedOperationException", KmsErrorKind::Unsupported),
];

/// Maps an error code to a kind, if it is known.
pub(crate) fn kind_of_code(code: &str) -> Option<KmsErrorKind> {
    let found = CODES.iter().find(|(known, _)| *known == code);
    found.map(|(_, kind)| *kind)
}

/// Maps the HTTP status of an unknown AWS error code to a kind.
pub(crate) fn kind_of_status(status: u16) -> KmsErrorKind {
    match status {
        401 | 403 => KmsErrorKind::AccessDenied,
        404 => KmsErrorKind::NotFound,
        429 => KmsErrorKind::Throttled,
        400..500 => KmsErrorKind::Configuration,
        _ => KmsErrorKind::Unavailable,
    }
}
