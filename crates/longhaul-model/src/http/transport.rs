//! Where a request goes: over the network, perhaps written down on the way, or to a recording of an earlier
//! run. What is asked, time limits, and what is made of an answer are left to others.

use reqwest::Url;

use super::{Peer, failure, head, parse_headers};
use crate::Error;
use crate::codec::{HttpRequest, Method, ResponseHead};
use crate::recording::{Playing, Taking, Tape};

/// The way to a provider.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    /// Connections; not needed where nothing goes over them.
    pub(super) http: Option<reqwest::Client>,
    pub(super) tape: Option<Tape>,
}

/// One request and its answer.
pub(super) struct Exchange {
    url: String,
    way: Way,
    /// What is written down of it.
    taking: Option<Taking>,
}

enum Way {
    /// Over the network: what is to be sent, and then the answer.
    Network { ready: Option<reqwest::RequestBuilder>, response: Option<reqwest::Response> },
    /// The answer is a recorded one.
    Played(Playing),
}

impl Transport {
    /// Tells whether nothing goes over the network.
    pub(super) fn is_replay(&self) -> bool {
        matches!(self.tape, Some(Tape::Replay(_)))
    }

    /// Prepares an exchange. Nothing is sent yet.
    pub(super) fn exchange(&self, request: HttpRequest, url: Url, peer: &Peer) -> Result<Exchange, Error> {
        let taking = match &self.tape {
            Some(Tape::Replay(replay)) => {
                let way = Way::Played(replay.begin(&request, &url)?);
                return Ok(Exchange { url: peer.url.clone(), way, taking: None });
            }
            Some(Tape::Record(recorder)) => Some(recorder.begin(&request, &url)),
            None => None,
        };
        let method = match request.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
        };
        let http = self.http.as_ref().expect("only a replay needs no connections");
        let ready = http.request(method, url).headers(parse_headers(&request.headers)?).body(request.body);
        let way = Way::Network { ready: Some(ready), response: None };
        Ok(Exchange { url: peer.url.clone(), way, taking })
    }
}

impl Exchange {
    /// Sends the request and waits for the beginning of the answer.
    pub(super) async fn begin(&mut self) -> Result<ResponseHead, Error> {
        let head = match &mut self.way {
            Way::Played(playing) => playing.head()?,
            Way::Network { ready, response } => {
                let ready = ready.take().expect("an exchange is begun once");
                match ready.send().await {
                    Ok(answered) => head(response.insert(answered)),
                    Err(error) => {
                        let error = failure::classify(&error, &self.url);
                        return Err(self.failed(error));
                    }
                }
            }
        };
        if let Some(taking) = &mut self.taking {
            taking.head(&head);
        }
        Ok(head)
    }

    /// Returns the next bytes of the answer; `None` after the last.
    pub(super) async fn chunk(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let bytes = match &mut self.way {
            Way::Network { response: Some(response), .. } => match response.chunk().await {
                Ok(bytes) => bytes.map(Vec::from),
                Err(error) => {
                    let error = failure::classify(&error, &self.url);
                    return Err(self.failed(error));
                }
            },
            Way::Network { response: None, .. } => None,
            Way::Played(playing) => playing.next()?.map(<[u8]>::to_vec),
        };
        if let Some(taking) = &mut self.taking {
            taking.body(bytes.as_deref());
        }
        Ok(bytes)
    }

    /// Notes why nothing more comes, and returns it.
    pub(super) fn failed(&mut self, error: Error) -> Error {
        if let Some(taking) = &mut self.taking {
            taking.failed(&error);
        }
        error
    }
}
