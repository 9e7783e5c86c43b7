//! What the hub is asked and what it sends: etags, files that are gone on with after a cut, refusals in words.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, StatusCode};
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, RequestBuilder};

use super::address::{Address, is_commit, plain};
use super::disk;
use crate::weights::hex;
use crate::{Error, Result, user};

/// How long a connection may say nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a file that is cut is gone on with before the user is told.
const TRIES: usize = 5;
/// Redirections within the hub.
const MOVES: usize = 5;
/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;

/// The hub at the other end.
pub(super) struct Wire {
    endpoint: String,
    token: Option<String>,
    agent: Agent,
}

/// What the hub says of a revision.
#[derive(Deserialize)]
struct Revision {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Wire {
    pub(super) fn new(endpoint: Option<String>, token: Option<String>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE));
        Self {
            endpoint: endpoint.as_deref().unwrap_or("https://huggingface.co").trim_end_matches('/').into(),
            token: token.map(|token| token.trim().into()),
            agent: config.build().into(),
        }
    }

    /// The commit that a revision stands for now, and the files in it.
    pub(super) fn revision(&self, address: &Address) -> Result<(String, Vec<String>)> {
        let (repository, revision) = (&address.repository, escaped(&address.revision, ""));
        let url = format!("{}/api/models/{repository}/revision/{revision}", self.endpoint);
        let strange = |what: String| user!("{url} does not answer as the hub does ({what}); check HF_ENDPOINT");
        let mut answer = self.call(address, self.agent.get(&url))?;
        let text = answer.body_mut().read_to_string().map_err(|e| strange(e.to_string()))?;
        let told: Revision = serde_json::from_str(&text).map_err(|e| strange(e.to_string()))?;
        if !is_commit(&told.sha) {
            return Err(strange(format!("its commit is {:?}", told.sha)));
        }
        // A name that leads elsewhere is none of a repository.
        Ok((told.sha, told.siblings.into_iter().map(|one| one.rfilename).filter(|name| plain(name)).collect()))
    }

    /// Where the file of an address with its commit is had.
    fn url(&self, address: &Address) -> String {
        let Address { repository, revision, file } = address;
        format!("{}/{repository}/resolve/{revision}/{}", self.endpoint, escaped(file, "/"))
    }

    /// Etag and size of a file. A large one lies on another server, which has an etag of its own: the hub's redirection counts.
    pub(super) fn announced(&self, address: &Address) -> Result<(String, u64)> {
        let mut url = self.url(address);
        for _ in 0..MOVES {
            let answer = self.call(address, self.agent.head(&url).config().max_redirects(0).build())?;
            let moved = answer.status().is_redirection();
            let header = |name: &str| Some(answer.headers().get(name)?.to_str().ok()?.to_string());
            // Within the hub: a repository that has another name now.
            if let Some(path) = header("location").filter(|path| moved && path.starts_with('/')) {
                let host = url.find("://").map_or(0, |at| at + 3);
                url.truncate(url[host..].find('/').map_or(url.len(), |at| host + at));
                url += &path;
                continue;
            }
            let own = |name: &str| header(name).filter(|_| !moved);
            let etag = header("x-linked-etag").or_else(|| own("etag")).unwrap_or_default();
            let etag = etag.trim_start_matches("W/").trim_matches('"').to_string();
            let size = header("x-linked-size").or_else(|| own("content-length")).and_then(|size| size.parse().ok());
            let is_name = !etag.is_empty() && etag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
            if let Some(size) = size.filter(|_| is_name) {
                return Ok((etag, size));
            }
            break;
        }
        Err(user!("{url} does not say which file it is (ETag, size), as the hub does; check HF_ENDPOINT"))
    }

    /// Goes on with a file until it is whole or nothing more comes, and holds it against its etag.
    pub(super) fn download(&self, address: &Address, part: &Path, etag: &str, size: u64) -> Result<()> {
        let url = self.url(address);
        let mut file = File::options().append(true).create(true).open(part).map_err(disk("write", part))?;
        let mut length = file.metadata().map_err(disk("read", part))?.len();
        let style = "{spinner} {wide_bar:.blue/dim} {bytes}/{total_bytes}  {bytes_per_sec}  ETA {eta}";
        let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(size).with_style(style);
        let mut why = String::new();
        for _ in 0..TRIES {
            if length >= size {
                break;
            }
            let request = self.agent.get(&url);
            let request = if length > 0 { request.header("Range", format!("bytes={length}-")) } else { request };
            bar.set_position(length);
            why = match self.try_call(address, request)? {
                Ok(answer) if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE => {
                    file.set_len(0).map_err(disk("write", part))?;
                    "it does not go on".into()
                }
                Ok(answer) => {
                    // Who cannot go on there sends all of it.
                    let start = if answer.status() == StatusCode::PARTIAL_CONTENT { length } else { 0 };
                    if start < length {
                        file.set_len(start).map_err(disk("write", part))?;
                    }
                    append(answer.into_body().into_reader().take(size - start + 1), &mut file, part, &bar)?
                }
                Err(error) => error.to_string(),
            };
            let before = std::mem::replace(&mut length, file.metadata().map_err(disk("read", part))?.len());
            if length == before {
                break;
            }
        }
        bar.finish_and_clear();
        if length < size {
            return Err(Error::Failed(format!(
                "{url}: {why} after {length} of {size} bytes; check the network and run this again, which goes on from there"
            )));
        }
        check(part, &url, etag, size)?;
        file.sync_all().map_err(disk("write", part))
    }

    /// The answer to a request.
    fn call(&self, address: &Address, request: RequestBuilder<WithoutBody>) -> Result<Response<Body>> {
        self.try_call(address, request)?.map_err(|error| {
            let endpoint = &self.endpoint;
            Error::Failed(format!(
                "{address}: {endpoint} does not answer ({error}); check the network, and HF_ENDPOINT if it is set"
            ))
        })
    }

    /// As [`Wire::call`]; what the network has against it is left to who asks.
    fn try_call(
        &self,
        address: &Address,
        request: RequestBuilder<WithoutBody>,
    ) -> Result<Result<Response<Body>, ureq::Error>> {
        let request = match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        };
        let (endpoint, repository) = (&self.endpoint, &address.repository);
        match request.call() {
            Ok(answer) => match answer.status().as_u16() {
                ..=399 | 416 => Ok(Ok(answer)),
                status @ (401 | 403) => Err(user!(
                    "{address}: {endpoint} does not give that to everybody (status {status}); check the name, accept the terms at \
                     {endpoint}/{repository} if there are some, and set HF_TOKEN to a token that may read it"
                )),
                404 => Err(user!("{address}: {endpoint} has no such repository, revision or file (status 404)")),
                status => {
                    Err(Error::Failed(format!("{address}: {endpoint} answers with status {status}; try again later")))
                }
            },
            Err(error) => Ok(Err(error)),
        }
    }
}

/// Writes what comes to the end of a file, and says why nothing more came.
fn append(mut from: impl Read, file: &mut File, path: &Path, bar: &ProgressBar) -> Result<String> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok("the answer ended".into()),
            Ok(n) => file.write_all(&buffer[..n]).map_err(disk("write", path))?,
            Err(error) => return Ok(error.to_string()),
        }
        bar.set_position(file.metadata().map_or(0, |data| data.len()));
    }
}

/// Removes a file that is not the one that was announced.
fn check(path: &Path, url: &str, etag: &str, size: u64) -> Result<()> {
    let mut file = File::open(path).map_err(disk("read", path))?;
    let (mut sha, mut length, mut buffer) = (Sha256::new(), 0, vec![0; CHUNK]);
    loop {
        match file.read(&mut buffer).map_err(disk("read", path))? {
            0 => break,
            n => {
                sha.update(&buffer[..n]);
                length += n as u64;
            }
        }
    }
    let sha = hex(&sha.finalize());
    // Git's own hash of a small file is of another kind.
    if length == size && (etag.len() != sha.len() || etag == sha) {
        return Ok(());
    }
    fs::remove_file(path).map_err(disk("remove", path))?;
    Err(Error::Failed(format!(
        "{url}: what came is not what the hub announced ({length} bytes with SHA-256 {sha:.12}…, and not {size} with {etag:.12}…) and is \
         removed; run this again"
    )))
}

/// As part of a URL; `kept` are left as they are, beside letters, digits and `-_.~`.
fn escaped(text: &str, kept: &str) -> String {
    let byte = |b: u8| match b {
        b if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) || kept.as_bytes().contains(&b) => {
            (b as char).to_string()
        }
        b => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}
