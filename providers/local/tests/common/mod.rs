//! Shared code of this crate's tests.

use encx::EncryptionContext;
use encx::keys::{DataKeyId, KeyUsage};
use encx::kms::KmsContext;
use encx_local::Protection;

pub(crate) fn insecure() -> Protection {
    Protection::insecure_file_permissions_only()
}

pub(crate) fn context() -> KmsContext {
    let user = EncryptionContext::builder().pair("tenantId", 1).build().unwrap();
    KmsContext::new(&user, KeyUsage::Data, DataKeyId::generate(1, None).unwrap())
}
