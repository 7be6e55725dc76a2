//! Single calls under one KEK, to check that it works.

use encx_core::key::{DataKey, WrappedKey};
use encx_core::kms::{GeneratedDataKey, KekDescription, KmsContext, KmsErrorKind, KmsOperation};

use super::{Call, Keks};
use crate::error::Error;
use crate::kek::KekRef;

impl Keks {
    /// Generates a data key.
    pub(crate) async fn generate_under(
        &self,
        kek: &KekRef,
        pairs: &KmsContext,
    ) -> Result<GeneratedDataKey, Error> {
        let call = Call::new(&kek.kms, KmsOperation::GenerateDataKey, self.timeout);
        self.call(call, |kms| kms.generate_data_key(&kek.kek, pairs))
            .await
    }

    /// Wraps a data key.
    pub(crate) async fn wrap_under(
        &self,
        kek: &KekRef,
        key: &DataKey,
        pairs: &KmsContext,
    ) -> Result<WrappedKey, Error> {
        let call = Call::new(&kek.kms, KmsOperation::WrapKey, self.timeout);
        self.call(call, |kms| kms.wrap_key(&kek.kek, key, pairs)).await
    }

    /// Unwraps a wrap.
    pub(crate) async fn unwrap_by(
        &self,
        kek: &KekRef,
        wrapped: &WrappedKey,
        pairs: &KmsContext,
    ) -> Result<DataKey, Error> {
        let call = Call::new(&kek.kms, KmsOperation::UnwrapKey, self.timeout);
        self.call(call, |kms| kms.unwrap_key(wrapped, pairs)).await
    }

    /// Tells whether a wrap is refused under pairs that are not its own. A refusal by the KMS's policy counts.
    ///
    /// # Errors
    ///
    /// Those of a call that failed for another reason.
    pub(crate) async fn refuses(
        &self,
        kek: &KekRef,
        wrapped: &WrappedKey,
        pairs: &KmsContext,
    ) -> Result<bool, Error> {
        let mut call = Call::new(&kek.kms, KmsOperation::UnwrapKey, self.timeout);
        call.refusal_expected = true;
        match self.call(call, |kms| kms.unwrap_key(wrapped, pairs)).await {
            Ok(_) => Ok(false),
            Err(Error::Kms(error))
                if matches!(error.kind(), KmsErrorKind::AccessDenied | KmsErrorKind::Integrity) =>
            {
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// Describes a KEK.
    pub(crate) async fn describe_now(&self, kek: &KekRef) -> Result<KekDescription, Error> {
        self.describe(kek, self.timeout).await
    }
}
