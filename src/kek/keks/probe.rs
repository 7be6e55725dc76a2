//! One call under one KEK, for those who find out whether it works.

use encx_core::key::{DataKey, WrappedKey};
use encx_core::kms::{GeneratedDataKey, KekDescription, KmsContext, KmsErrorKind, KmsOperation};

use super::{Call, Keks};
use crate::error::Error;
use crate::kek::KekRef;

impl Keks {
    /// Has a data key made.
    pub(crate) async fn generate_under(
        &self,
        kek: &KekRef,
        pairs: &KmsContext,
    ) -> Result<GeneratedDataKey, Error> {
        let call = Call::new(&kek.kms, KmsOperation::GenerateDataKey, self.timeout);
        self.call(call, |kms| kms.generate_data_key(&kek.kek, pairs))
            .await
    }

    /// Has a data key wrapped.
    pub(crate) async fn wrap_under(
        &self,
        kek: &KekRef,
        key: &DataKey,
        pairs: &KmsContext,
    ) -> Result<WrappedKey, Error> {
        let call = Call::new(&kek.kms, KmsOperation::WrapKey, self.timeout);
        self.call(call, |kms| kms.wrap_key(&kek.kek, key, pairs)).await
    }

    /// Has a wrap unwrapped.
    pub(crate) async fn unwrap_by(
        &self,
        kek: &KekRef,
        wrapped: &WrappedKey,
        pairs: &KmsContext,
    ) -> Result<DataKey, Error> {
        let call = Call::new(&kek.kms, KmsOperation::UnwrapKey, self.timeout);
        self.call(call, |kms| kms.unwrap_key(wrapped, pairs)).await
    }

    /// Tells whether a wrap is refused under pairs that are not its own. That the KMS's policy refuses them is as good.
    ///
    /// # Errors
    ///
    /// Those of a call that was not refused for this reason.
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

    /// Has a KEK described.
    pub(crate) async fn describe_now(&self, kek: &KekRef) -> Result<KekDescription, Error> {
        self.describe(kek, self.timeout).await
    }
}
