//! A KMS that reports the data keys it returns.

use async_trait::async_trait;
use encx::kms::{
    DataKey, GeneratedDataKey, KekDescription, KekId, KeyManagementService, KmsContext, KmsError, WrappedKey,
};

use crate::report::report_key;

/// Reports each data key that the KMS returns.
#[derive(Clone, Debug)]
pub(crate) struct Tap<K>(pub(crate) K);

#[async_trait]
impl<K: KeyManagementService> KeyManagementService for Tap<K> {
    fn provider(&self) -> &'static str {
        self.0.provider()
    }

    fn default_kek(&self) -> Option<&KekId> {
        self.0.default_kek()
    }

    async fn generate_data_key(
        &self,
        kek: &KekId,
        context: &KmsContext,
    ) -> Result<GeneratedDataKey, KmsError> {
        let made = self.0.generate_data_key(kek, context).await?;
        report_key(&made.key);
        Ok(made)
    }

    async fn wrap_key(
        &self,
        kek: &KekId,
        key: &DataKey,
        context: &KmsContext,
    ) -> Result<WrappedKey, KmsError> {
        self.0.wrap_key(kek, key, context).await
    }

    async fn unwrap_key(&self, wrapped: &WrappedKey, context: &KmsContext) -> Result<DataKey, KmsError> {
        let key = self.0.unwrap_key(wrapped, context).await?;
        report_key(&key);
        Ok(key)
    }

    async fn rewrap_key(
        &self,
        wrapped: &WrappedKey,
        context: &KmsContext,
        to: &KekId,
    ) -> Result<WrappedKey, KmsError> {
        self.0.rewrap_key(wrapped, context, to).await
    }

    async fn describe_kek(&self, kek: &KekId) -> Result<KekDescription, KmsError> {
        self.0.describe_kek(kek).await
    }
}
