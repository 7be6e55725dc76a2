//! The digest of an API token in a record.

use encx_core::codec::FieldCodec;

use crate::token::TokenDigest;

/// The type of a field with `#[encx(token, ..)]`: [`TokenDigest`].
#[diagnostic::on_unimplemented(
    message = "a token is kept in a field of type `encx::token::TokenDigest`, and not of `{Self}`",
    label = "write `encx::token::TokenDigest` here",
    note = "or `Option<encx::token::TokenDigest>`, where some rows have none"
)]
pub trait TokenField: FieldCodec + sealed::Sealed {}

impl TokenField for TokenDigest {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::token::TokenDigest {}
}
