//! Things done to devices and to the server itself: commands, SIM switches, fault switches.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use rusqlite::Transaction;
use serde::Deserialize;

use crate::app::App;
use crate::faults::Rules;
use crate::json;
use crate::problem::Problem;
use crate::server::FaultSwitches;
use crate::store::commands::CommandKind;
use crate::store::{bindings, commands};

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CommandRequest {
    device_id: String,
    command: CommandKind,
    subscriber_identifier: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SwitchRequest {
    device_id: String,
    slot: String,
    iccid: Option<String>,
}

pub(super) async fn command(State(app): State<App>, body: Bytes) -> Result<Response, Problem> {
    let request: CommandRequest = json::read(&body)?;
    let command = app
        .store
        .run(move |tx, _| {
            must_be_registered(tx, &request.device_id)?;
            let subscriber = request.subscriber_identifier.as_deref();
            Ok::<_, Problem>(commands::send(tx, &request.device_id, request.command, subscriber)?)
        })
        .await?;
    app.commands_changed();
    Ok(json::answer(StatusCode::CREATED, &command))
}

pub(super) async fn switch(State(app): State<App>, body: Bytes) -> Result<Response, Problem> {
    let request: SwitchRequest = json::read(&body)?;
    let binding = app
        .store
        .run(move |tx, _| {
            let SwitchRequest { device_id, slot, iccid } = &request;
            must_be_registered(tx, device_id)?;
            let (old, new) = bindings::rebind(tx, device_id, slot, iccid.as_deref())?;
            commands::send(tx, device_id, CommandKind::Switch, Some(&old.subscriber_identifier))?;
            Ok::<_, Problem>(new)
        })
        .await?;
    app.commands_changed();
    Ok(json::answer(StatusCode::CREATED, &binding))
}

pub(super) async fn faults(State(app): State<App>) -> Result<Response, Problem> {
    must_be_allowed(&app)?;
    Ok(json::answer(StatusCode::OK, &app.faults.get()))
}

pub(super) async fn set_faults(State(app): State<App>, body: Bytes) -> Result<Response, Problem> {
    must_be_allowed(&app)?;
    let rules: Rules = json::read(&body)?;
    rules.check(app.can_restart())?;
    app.faults.set(rules);
    Ok(json::answer(StatusCode::OK, &app.faults.get()))
}

pub(super) async fn clear_faults(State(app): State<App>) -> Result<StatusCode, Problem> {
    must_be_allowed(&app)?;
    app.faults.set(Rules::default());
    Ok(StatusCode::NO_CONTENT)
}

fn must_be_allowed(app: &App) -> Result<(), Problem> {
    match app.options.faults {
        FaultSwitches::Allowed => Ok(()),
        FaultSwitches::Refused => {
            Err(Problem::forbidden("FAULTS_NOT_ALLOWED", "the server was started without --allow-faults"))
        }
    }
}

fn must_be_registered(tx: &Transaction<'_>, device: &str) -> Result<(), Problem> {
    if tx.prepare("SELECT 1 FROM devices WHERE device_id = ?1")?.exists([device])? {
        Ok(())
    } else {
        Err(Problem::not_found("DEVICE_NOT_FOUND", format!("there is no device {device}")))
    }
}
