//! The code of `README.md`.

#[path = "../../tests/docs/shown.rs"]
mod shown;

use encx::{EncryptionContext, Field};
use encx_testkit::Harness;

const SSN: Field = Field::new("users", "ssn");

#[tokio::test]
async fn the_second_request_does_not_call_the_kms() -> Result<(), encx::Error> {
    let harness = Harness::new().await;
    let tenant = EncryptionContext::builder().pair("tenantId", "acme").build()?;
    // What your service does, given `harness.crypto()`.
    let crypto = harness.crypto();
    crypto.encrypt(&tenant, "123-45-6789", SSN.row(1)).await?;
    crypto.encrypt(&tenant, "987-65-4321", SSN.row(2)).await?;
    harness.assert_kms_calls(1);
    Ok(())
}

#[test]
fn the_readme_shows_code_that_is_tested() {
    shown::assert_shown(include_str!("../README.md"), include_str!("readme.rs"));
}
