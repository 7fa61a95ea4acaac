//! The SIM pool and the claim codes.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use rusqlite::params;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::app::App;
use crate::charging;
use crate::json;
use crate::problem::{InvalidParam, Problem};
use crate::units::RatingGroup;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Sim {
    iccid: String,
    subscriber_identifier: String,
    #[serde(default = "usual_apn")]
    apn: String,
    #[serde(default = "usual_rating_groups")]
    rating_groups: Vec<RatingGroup>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClaimCode {
    claim_code: Option<String>,
}

impl Sim {
    fn check(&self) -> Result<(), Problem> {
        let mut wrong = Vec::new();
        if !(18..=22).contains(&self.iccid.len()) || !self.iccid.bytes().all(|byte| byte.is_ascii_digit()) {
            wrong.push(InvalidParam::new("iccid", "not 18 to 22 digits"));
        }
        if !charging::is_imsi(&self.subscriber_identifier) {
            wrong.push(InvalidParam::new("subscriberIdentifier", "not `imsi-` and 5 to 15 digits"));
        }
        if !(1..=100).contains(&self.apn.len()) {
            wrong.push(InvalidParam::new("apn", "not 1 to 100 characters"));
        }
        if self.rating_groups.is_empty() {
            wrong.push(InvalidParam::new("ratingGroups", "at least one is needed"));
        }
        if wrong.is_empty() { Ok(()) } else { Err(Problem::incorrect(wrong)) }
    }
}

pub(super) async fn add_sim(State(app): State<App>, body: Bytes) -> Result<Response, Problem> {
    let sim: Sim = json::read(&body)?;
    sim.check()?;
    let sim = app
        .store
        .run(move |tx, _| {
            let is_new = tx.execute(
                "INSERT INTO sims (iccid, subscriber, apn, rating_groups) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
                params![sim.iccid, sim.subscriber_identifier, sim.apn, serde_json::to_string(&sim.rating_groups)?],
            )? == 1;
            if is_new { Ok(sim) } else { Err(exists("the pool has a SIM of this iccid or subscriberIdentifier")) }
        })
        .await?;
    Ok(json::answer(StatusCode::CREATED, &sim))
}

pub(super) async fn sims(State(app): State<App>) -> Result<Response, Problem> {
    let sims = app
        .store
        .run(move |tx, _| {
            tx.prepare(
                "SELECT s.iccid, s.subscriber, s.apn, s.rating_groups, b.device_id, b.slot, b.id
                 FROM sims s LEFT JOIN bindings b USING (iccid) ORDER BY s.rowid",
            )?
            .query_map([], |row| {
                let device: Option<String> = row.get(4)?;
                let (slot, binding): (Option<String>, Option<String>) = (row.get(5)?, row.get(6)?);
                let groups: Value = serde_json::from_str(&row.get::<_, String>(3)?).unwrap_or_default();
                Ok(json!({
                    "iccid": row.get::<_, String>(0)?,
                    "subscriberIdentifier": row.get::<_, String>(1)?,
                    "apn": row.get::<_, String>(2)?,
                    "ratingGroups": groups,
                    "boundTo": device.map(|device| json!({ "deviceId": device, "slot": slot, "bindingId": binding })),
                }))
            })?
            .collect::<rusqlite::Result<Vec<_>>>()
        })
        .await?;
    Ok(json::answer(StatusCode::OK, &json!({ "sims": sims })))
}

pub(super) async fn add_claim_code(State(app): State<App>, body: Bytes) -> Result<Response, Problem> {
    let asked: ClaimCode = if body.is_empty() { ClaimCode::default() } else { json::read(&body)? };
    let code = asked.claim_code.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
    if !(1..=64).contains(&code.chars().count()) {
        return Err(Problem::incorrect(vec![InvalidParam::new("claimCode", "not 1 to 64 characters")]));
    }
    let code = app
        .store
        .run(move |tx, _| {
            let is_new = tx.execute("INSERT INTO claim_codes (code) VALUES (?1) ON CONFLICT DO NOTHING", [&code])? == 1;
            if is_new { Ok(code) } else { Err(exists("there is such a claim code")) }
        })
        .await?;
    Ok(json::answer(StatusCode::CREATED, &json!({ "claimCode": code, "usedBy": null })))
}

pub(super) async fn claim_codes(State(app): State<App>) -> Result<Response, Problem> {
    let codes = app
        .store
        .run(move |tx, _| {
            tx.prepare("SELECT code, used_by FROM claim_codes ORDER BY rowid")?
                .query_map([], |row| {
                    let used_by: Option<String> = row.get(1)?;
                    Ok(json!({ "claimCode": row.get::<_, String>(0)?, "usedBy": used_by }))
                })?
                .collect::<rusqlite::Result<Vec<_>>>()
        })
        .await?;
    Ok(json::answer(StatusCode::OK, &json!({ "claimCodes": codes })))
}

pub(super) fn exists(detail: &str) -> Problem {
    Problem::conflict("ALREADY_EXISTS", detail)
}

fn usual_apn() -> String {
    "internet".to_owned()
}

fn usual_rating_groups() -> Vec<RatingGroup> {
    vec![RatingGroup(10)]
}
