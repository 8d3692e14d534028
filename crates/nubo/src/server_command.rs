//! `nubo server`: what no command of OpenStack does with a server.

use crate::settings::Settings;
use crate::trash::{plain, run};
use anyhow::Result;
use clap::Subcommand;
use hyper::Method;
use serde_json::json;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum ServerCommand {
    /// Copy what the image below a server's disk holds into the disk, so that it needs the image no more. The server
    /// goes on meanwhile; `nubo explain server ID` says when it is done (administrators)
    Flatten { id: String },
}

pub fn main(settings: &Settings, command: ServerCommand) -> Result<ExitCode> {
    let ServerCommand::Flatten { id } = command;
    run(settings, async |client, _| {
        let path = format!("/servers/{}/action", plain(&id)?);
        client.call(Method::POST, "compute", &path, Some(json!({"nubo-flatten": null}))).await?;
        Ok(ExitCode::SUCCESS)
    })
}
