//! The onboarding messages.

use serde::{Deserialize, Serialize};

/// A device introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisterRequest {
    /// 1 to 64 letters, digits, dots, dashes and underscores.
    pub device_id: String,
    /// The `nFName` of its charging messages.
    pub nf_instance_id: String,
    /// Serial number.
    pub serial: String,
    /// What it is.
    pub model: String,
    /// What runs on it.
    pub agent_version: String,
    /// Its modems.
    pub modems: Vec<Modem>,
    /// The key that its assertions are signed with.
    pub public_key: PublicKey,
    /// One-time code from whoever runs the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_code: Option<String>,
}

/// A modem of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Modem {
    /// The slot's name.
    pub slot: String,
    /// Its equipment number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imei: Option<String>,
    /// The SIM in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iccid: Option<String>,
}

/// An Ed25519 key as a JWK (RFC 8037).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    /// `OKP`.
    pub kty: String,
    /// `Ed25519`.
    pub crv: String,
    /// 32 octets, base64url without padding.
    pub x: String,
}

/// The device is known now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisterResponse {
    /// As in the request.
    pub device_id: String,
    /// As in the request.
    pub nf_instance_id: String,
    /// When it was first known.
    pub registered_at: String,
}

/// A device asks for a SIM for a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BindingRequest {
    /// The slot's name.
    pub slot: String,
    /// The modem's equipment number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imei: Option<String>,
    /// This SIM and no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iccid: Option<String>,
}

/// What an assertion claims (RFC 7523).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssertionClaims {
    /// The device id.
    pub iss: String,
    /// The device id.
    pub sub: String,
    /// The token endpoint's address.
    pub aud: Audience,
    /// When it was made, seconds since 1970.
    pub iat: i64,
    /// When it ends, at most 300 s after `iat`.
    pub exp: i64,
    /// Its number, used once.
    pub jti: String,
}

/// One audience or several (RFC 7519, section 4.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

impl Audience {
    /// Whether one of them ends so.
    #[must_use]
    pub fn any_ends_with(&self, end: &str) -> bool {
        match self {
            Self::One(audience) => audience.ends_with(end),
            Self::Several(audiences) => audiences.iter().any(|audience| audience.ends_with(end)),
        }
    }
}
