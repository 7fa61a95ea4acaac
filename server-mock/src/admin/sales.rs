//! Plans, purchases and top-ups.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use rusqlite::{OptionalExtension as _, Transaction, params};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::pool::exists;
use super::terms::Terms;
use crate::app::App;
use crate::json;
use crate::problem::{InvalidParam, Problem};
use crate::store::commands::CommandKind;
use crate::store::{bindings, commands, packages};
use crate::units::{Octets, RatingGroup, Seconds};

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TopUp {
    subscriber_identifier: String,
    octets: Octets,
    #[serde(default = "usual_rating_group")]
    rating_group: RatingGroup,
}

pub(super) async fn add_plan(State(app): State<App>, body: Bytes) -> Result<Response, Problem> {
    let mut members: Map<String, Value> = json::read(&body)?;
    let plan_id = take_text(&mut members, "planId")?.ok_or_else(|| Problem::missing("planId"))?;
    let terms = terms(members, app.options.validity)?;
    let document = app
        .store
        .run(move |tx, _| {
            let is_new = tx.execute(
                "INSERT INTO plans (plan_id, terms) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                params![plan_id, serde_json::to_string(&terms)?],
            )? == 1;
            if is_new {
                Ok(plan_document(&plan_id, serde_json::to_value(&terms)?))
            } else {
                Err(exists("there is such a plan"))
            }
        })
        .await?;
    Ok(json::answer(StatusCode::CREATED, &document))
}

pub(super) async fn plans(State(app): State<App>) -> Result<Response, Problem> {
    let plans = app
        .store
        .run(move |tx, _| {
            let found = tx
                .prepare("SELECT plan_id, terms FROM plans ORDER BY plan_id")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<Vec<(String, String)>>>()?;
            found
                .into_iter()
                .map(|(plan_id, terms)| Ok(plan_document(&plan_id, serde_json::from_str(&terms)?)))
                .collect::<Result<Vec<_>, Problem>>()
        })
        .await?;
    Ok(json::answer(StatusCode::OK, &json!({ "plans": plans })))
}

pub(super) async fn purchase(State(app): State<App>, body: Bytes) -> Result<Response, Problem> {
    let mut members: Map<String, Value> = json::read(&body)?;
    let subscriber =
        take_text(&mut members, "subscriberIdentifier")?.ok_or_else(|| Problem::missing("subscriberIdentifier"))?;
    let plan_id = take_text(&mut members, "planId")?;
    let validity = app.options.validity;
    let package = app
        .store
        .run(move |tx, now| {
            let mut bought = plan_id.map(|plan_id| plan_members(tx, &plan_id)).transpose()?.unwrap_or_default();
            bought.append(&mut members);
            let terms = terms(bought, validity)?;
            if !bindings::is_subscriber(tx, &subscriber)? {
                return Err(Problem::not_found("USER_UNKNOWN", format!("there is no subscriber {subscriber}")));
            }
            let package = packages::buy(tx, now, &subscriber, terms)?;
            commands::send_to_holder(tx, &subscriber, CommandKind::PlanChanged)?;
            Ok(package.admin_entry(tx)?)
        })
        .await?;
    app.commands_changed();
    Ok(json::answer(StatusCode::CREATED, &package))
}

pub(super) async fn top_up(State(app): State<App>, body: Bytes) -> Result<Response, Problem> {
    let request: TopUp = json::read(&body)?;
    if !(1..=1 << 61).contains(&request.octets.0) {
        return Err(Problem::incorrect(vec![InvalidParam::new("octets", "must be 1 to 2^61")]));
    }
    let package = app
        .store
        .run(move |tx, now| {
            let account = (request.subscriber_identifier.as_str(), request.rating_group);
            let package = packages::top_up(tx, now, account, request.octets)?;
            commands::send_to_holder(tx, &request.subscriber_identifier, CommandKind::Reauthorise)?;
            Ok::<_, Problem>(package.admin_entry(tx)?)
        })
        .await?;
    app.commands_changed();
    Ok(json::answer(StatusCode::CREATED, &package))
}

fn terms(members: Map<String, Value>, validity: Seconds) -> Result<Terms, Problem> {
    if !members.contains_key("totalVolume") {
        return Err(Problem::missing("totalVolume"));
    }
    json::from_value::<Terms>(Value::Object(members))?.checked(validity)
}

fn plan_members(tx: &Transaction<'_>, plan_id: &str) -> Result<Map<String, Value>, Problem> {
    let terms: Option<String> =
        tx.query_row("SELECT terms FROM plans WHERE plan_id = ?1", [plan_id], |row| row.get(0)).optional()?;
    let terms = terms.ok_or_else(|| Problem::not_found("PLAN_NOT_FOUND", format!("there is no plan {plan_id}")))?;
    Ok(serde_json::from_str(&terms)?)
}

fn plan_document(plan_id: &str, mut terms: Value) -> Value {
    terms["planId"] = plan_id.into();
    terms
}

fn take_text(members: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Problem> {
    match members.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Problem::incorrect(vec![InvalidParam::new(name, "not a string")])),
    }
}

fn usual_rating_group() -> RatingGroup {
    RatingGroup(10)
}
