//! The stores that a request attaches: which it may use, how they take part, and where its answer comes from.

use std::sync::Arc;

use safelmm_datastore::{Access, LicenseClass, View};
use safelmm_model::{Progress, Rating, TokenizerError};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::extension::refusal;
use super::json::shortened;
use super::request::{Attribution as Told, Mode, PassageRanking, Retrieval as Fields};
use crate::app::App;
use crate::keys::{Principal, Use};
use crate::retrieval::{
    Attribution, Grain, Mixing, NeighbourSettings, NgramTuning, PassageSettings, Ranking, Recorder, Retrieval, Text,
    Tuning, VERBATIM_TOKENS, attribute, gated, verbatim,
};

/// The most stores of one request.
const MAX_STORES: usize = 16;
/// The most documents that a request can leave out.
const MAX_EXCLUDED: usize = 1024;
/// The most neighbours that can be asked for.
const MAX_K: usize = 1024;
/// The most attributions of one choice; verbatim ones come last.
const MAX_ATTRIBUTIONS: usize = 4096;
/// The most passages that can stand before a prompt.
const MAX_PASSAGES: usize = 16;
const MAX_STRIDE: usize = 4096;
/// After how many tokens passages are chosen anew, where the request does not say. Each time costs a pass over the whole
/// sequence (Ram et al. 2023, section 5.2, weigh one against the other).
const STRIDE: usize = 64;

/// What a request says of stores.
#[derive(Default)]
pub struct Asked {
    /// Their names.
    pub stores: Option<Vec<String>>,
    /// How they take part.
    pub retrieval: Option<Fields>,
    /// Whether the answer says where it comes from.
    pub attribution: Option<Told>,
    /// Documents that must not take part.
    pub exclude_documents: Option<Vec<String>>,
}

/// The stores of a request, checked.
pub struct Attachment {
    /// How they take part.
    pub retrieval: Retrieval,
    /// What an answer says of them.
    pub stores: Vec<StoreInForce>,
    grain: Option<Grain>,
    /// Whether policies ask which documents had a part in an answer.
    judged: bool,
    training: Option<View>,
}

/// A store that takes part in an answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StoreInForce {
    /// Its name.
    name: String,
    /// The licenses of the documents that this request may use.
    licenses: Vec<LicenseInForce>,
}

/// A license under which documents take part.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct LicenseInForce {
    /// The SPDX expression.
    license: String,
    /// What it asks, roughly.
    #[schema(value_type = String)]
    class: LicenseClass,
}

impl StoreInForce {
    fn of(name: &str, view: &View) -> Self {
        let license = |license: safelmm_datastore::License| LicenseInForce {
            class: license.class(),
            license: license.to_string(),
        };
        StoreInForce { name: name.to_owned(), licenses: view.licenses().into_iter().map(license).collect() }
    }
}

/// What a request may use of stores: what its use, its rating and the operator's table allow, per document.
pub fn access(app: &App, declared_use: Use, rating: Option<Rating>, attributed: bool) -> Access {
    Access {
        declared_use: declared_use.into(),
        rating_ceiling: rating.map(|rating| match rating {
            Rating::G => safelmm_datastore::Rating::G,
            Rating::PG => safelmm_datastore::Rating::PG,
            Rating::R => safelmm_datastore::Rating::R,
            Rating::X => safelmm_datastore::Rating::X,
        }),
        attributed,
        table: *app.gate(),
    }
}

/// What a request may use of the stores that it names, in their order, with the parameters that suit the largest part.
///
/// # Errors
/// A store that there is not, that the key may not ask, or in which there is nothing for this request: all three are told
/// in the same words, so that nobody learns of a store that is not for him.
pub fn open(
    names: &[String],
    app: &App,
    principal: &Principal,
    access: &Access,
    exclude: &[String],
) -> Result<(Vec<View>, Arc<Tuning>), ApiError> {
    if names.len() > MAX_STORES {
        return Err(refusal("stores", &format!("names {} stores: at most {MAX_STORES} can be attached", names.len())));
    }
    if exclude.len() > MAX_EXCLUDED {
        let message = format!("names {} documents: at most {MAX_EXCLUDED} can be left out", exclude.len());
        return Err(refusal("exclude_documents", &message));
    }
    let mut views = Vec::with_capacity(names.len());
    let mut largest: Option<(u64, Arc<Tuning>)> = None;
    for (i, name) in names.iter().enumerate() {
        if names[..i].contains(name) {
            return Err(refusal("stores", &format!("names '{}' twice", shortened(name))));
        }
        let attached = Some(name).filter(|name| principal.may_ask(name)).and_then(|name| app.stores().get(name));
        let attached = attached.map(|attached| (attached.store.view(access, &[]), attached));
        // What is left out is left out of something: a store of which nothing remains is no unknown one.
        let attached = attached.filter(|(permitted, _)| !permitted.is_empty());
        let (permitted, attached) = attached.ok_or_else(|| ApiError::UnknownStore(shortened(name)))?;
        let view = if exclude.is_empty() { permitted.clone() } else { attached.store.view(access, exclude) };
        let tokens = permitted.tokens();
        if largest.as_ref().is_none_or(|(most, _)| tokens > *most) {
            largest = Some((tokens, attached.tuning(&permitted)));
        }
        views.push(view);
    }
    Ok((views, largest.map(|(_, tuning)| tuning).unwrap_or_default()))
}

impl Attachment {
    /// Checks what a request asks of stores; none where it asks nothing.
    pub fn new(
        asked: Asked,
        app: &App,
        principal: &Principal,
        declared_use: Use,
        rating: Option<Rating>,
    ) -> Result<Option<Self>, ApiError> {
        let Asked { stores, retrieval, attribution, exclude_documents } = asked;
        let (names, exclude) = (stores.unwrap_or_default(), exclude_documents.unwrap_or_default());
        let attribution = attribution.unwrap_or(if names.is_empty() { Told::None } else { Told::Spans });
        let grain = match attribution {
            Told::None => None,
            Told::Spans => Some(Grain::Spans),
            Told::Tokens => Some(Grain::Tokens),
        };
        if names.is_empty() {
            refuse_without_stores(retrieval.as_ref(), &exclude)?;
            if grain.is_none() {
                return Ok(None);
            }
            if app.stores().training().is_none() {
                let message = "needs a store ('safelmm.stores'): this server has no index of the training text";
                return Err(refusal("attribution", message));
            }
        }
        let access = access(app, declared_use, rating, grain.is_some());
        let (views, tuning) = open(&names, app, principal, &access, &exclude)?;
        let dense = retrieval.as_ref().is_some_and(|fields| fields.ranking == Some(PassageRanking::Dense));
        if dense {
            check_passages(&names, app, "safelmm.retrieval.ranking")?;
        }
        let (mixing, passages) = match names.is_empty() {
            true => (None, None),
            false => ways(retrieval.unwrap_or_default(), &tuning, app)?,
        };
        let judged = app.policies().pipeline().asks_for_sources();
        let stores = names.iter().zip(&views).map(|(name, view)| StoreInForce::of(name, view)).collect();
        let retrieval = Retrieval { view: View::join(&views), mixing, passages, recorded: grain.is_some() || judged };
        let training = app.stores().training().filter(|_| grain.is_some()).map(|store| store.view(&access, &exclude));
        Ok(Some(Attachment { retrieval, stores, grain, judged, training }))
    }

    /// Whether the answer says where it comes from.
    pub fn is_told(&self) -> bool {
        self.grain.is_some()
    }

    /// Whether it must be known where the answer comes from.
    pub fn is_traced(&self) -> bool {
        self.is_told() || self.judged
    }

    /// Where a choice comes from. Takes a while for a long one.
    ///
    /// # Errors
    /// Tokens that cannot be shown.
    pub fn attribute(&self, traced: Traced, app: &App) -> Result<Vec<Attribution>, TokenizerError> {
        let grain = self.grain.unwrap_or(Grain::Spans);
        let Traced { recorder, tokens, shown, scored, prompt_tokens, before } = traced;
        let text = Text::of_tokens(tokens, shown, &app.checkpoint().tokenizer)?;
        let mut evidence = recorder.map(|recorder| recorder.take()).unwrap_or_default();
        evidence.tokens.drain(..scored.min(evidence.tokens.len()));
        let view = &self.retrieval.view;
        let mut found = attribute(&text, &evidence, prompt_tokens, grain, view);
        found.extend(verbatim(&text, VERBATIM_TOKENS, view, None));
        if let Some(training) = &self.training {
            found.extend(verbatim(&text, VERBATIM_TOKENS, training, Some("training")));
        }
        // What a stop string cut off is nobody's.
        found.retain(|attribution| attribution.start < attribution.end);
        found.truncate(MAX_ATTRIBUTIONS);
        for attribution in &mut found {
            attribution.start += before;
            attribution.end += before;
        }
        Ok(found)
    }
}

/// What is known of a sequence when it has ended.
#[derive(Clone, Debug, Default)]
pub struct Traced {
    /// What its stages recorded.
    pub recorder: Option<Recorder>,
    /// The tokens that were drawn.
    pub tokens: Vec<u32>,
    /// Characters of theirs that were shown.
    pub shown: usize,
    /// Tokens of the prompt that were scored.
    pub scored: usize,
    /// Tokens of the prompt, without its start.
    pub prompt_tokens: usize,
    /// Characters of the choice that stand before its tokens.
    pub before: usize,
}

impl Traced {
    /// Keeps what a step brought.
    pub fn follow(&mut self, progress: &Progress) {
        self.scored += progress.scored.len();
        if let Some(step) = &progress.step {
            self.tokens.push(step.token.token);
            self.shown += step.text.chars().count();
        }
    }
}

/// Refuses to compare vectors of different makers.
pub fn check_passages(names: &[String], app: &App, param: &str) -> Result<(), ApiError> {
    let mut stores = names.iter().filter_map(|name| app.stores().get(name));
    let checked = stores.try_for_each(|attached| attached.check_passages(app.stores().encoder()));
    checked.map_err(|error| ApiError::parameter(param, format!("'{param}' cannot be \"dense\": {error}")))
}

fn refuse_without_stores(retrieval: Option<&Fields>, exclude: &[String]) -> Result<(), ApiError> {
    let none = Fields::default();
    let Fields { mode, k, lambda, temperature, passages, ranking, stride } = retrieval.unwrap_or(&none);
    for (name, asked) in [
        ("retrieval.mode", mode.is_some_and(|mode| mode != Mode::Off)),
        ("retrieval.k", k.is_some()),
        ("retrieval.lambda", lambda.is_some()),
        ("retrieval.temperature", temperature.is_some()),
        ("retrieval.passages", passages.is_some()),
        ("retrieval.ranking", ranking.is_some()),
        ("retrieval.stride", stride.is_some()),
        ("exclude_documents", !exclude.is_empty()),
    ] {
        if asked {
            return Err(refusal(name, "needs a store: name one in 'safelmm.stores'"));
        }
    }
    Ok(())
}

type Ways = (Option<(Mixing, NeighbourSettings)>, Option<PassageSettings>);

/// How stores take part, by what the request says and what suits the stores.
fn ways(fields: Fields, tuning: &Tuning, app: &App) -> Result<Ways, ApiError> {
    let Fields { mode, k, lambda, temperature, passages, ranking, stride } = fields;
    let mode = mode.unwrap_or(Mode::Hybrid);
    let near = matches!(mode, Mode::Knn | Mode::Hybrid);
    let in_context = mode == Mode::Ric || (mode == Mode::Hybrid && passages.is_some());
    for (name, asked, fits, why) in [
        ("k", k.is_some(), near, "is for the modes 'knn' and 'hybrid'"),
        ("temperature", temperature.is_some(), near, "is for the modes 'knn' and 'hybrid'"),
        (
            "lambda",
            lambda.is_some(),
            matches!(mode, Mode::Knn | Mode::Ngram),
            "is for the modes 'knn' and 'ngram': 'hybrid' chooses it for each token",
        ),
        (
            "passages",
            passages.is_some(),
            matches!(mode, Mode::Ric | Mode::Hybrid),
            "is for the modes 'ric' and 'hybrid'",
        ),
        ("ranking", ranking.is_some(), in_context, "is for passages: set 'mode' to 'ric', or 'passages'"),
        ("stride", stride.is_some(), in_context, "is for passages: set 'mode' to 'ric', or 'passages'"),
    ] {
        if asked && !fits {
            return Err(refusal(&format!("retrieval.{name}"), why));
        }
    }
    let suits = match mode {
        Mode::Hybrid => (tuning.hybrid.k, tuning.hybrid.temperature),
        _ => (tuning.neighbours.k, tuning.neighbours.temperature),
    };
    let k = within("k", k.unwrap_or(suits.0), MAX_K)?;
    let temperature = temperature.unwrap_or(suits.1);
    if !(temperature > 0.0 && temperature.is_finite()) {
        return Err(refusal("retrieval.temperature", &format!("must be a number above 0, found {temperature}")));
    }
    if let Some(lambda) = lambda.filter(|lambda| !(0.0..=1.0).contains(lambda)) {
        return Err(refusal("retrieval.lambda", &format!("must be between 0 and 1, found {lambda}")));
    }
    let mixing = match mode {
        Mode::Off | Mode::Ric => None,
        Mode::Knn => Some(Mixing::Neighbours { lambda: lambda.unwrap_or(tuning.neighbours.lambda) }),
        Mode::Ngram => {
            let asked = lambda.map(|lambda| NgramTuning { sparse: lambda, dense: lambda });
            Some(Mixing::Ngram(asked.unwrap_or(tuning.ngram)))
        }
        Mode::Hybrid => Some(gated(&tuning.hybrid.gate)),
    };
    let passages = match in_context {
        false => None,
        true => Some(PassageSettings {
            count: within("passages", passages.unwrap_or(1), MAX_PASSAGES)?,
            ranking: match ranking.unwrap_or(PassageRanking::Bm25) {
                PassageRanking::Bm25 => Ranking::Words,
                PassageRanking::Dense => Ranking::Vectors(app.stores().encoder().passages().clone()),
            },
            stride: within("stride", stride.unwrap_or(STRIDE), MAX_STRIDE)?,
            tokens: app.stores().passage_tokens(),
        }),
    };
    Ok((mixing.map(|mixing| (mixing, NeighbourSettings { k, temperature })), passages))
}

fn within(name: &str, value: usize, most: usize) -> Result<usize, ApiError> {
    match value {
        value if (1..=most).contains(&value) => Ok(value),
        value => Err(refusal(&format!("retrieval.{name}"), &format!("must be between 1 and {most}, found {value}"))),
    }
}

impl From<Use> for safelmm_datastore::gate::Use {
    fn from(declared: Use) -> Self {
        match declared {
            Use::Commercial => safelmm_datastore::gate::Use::Commercial,
            Use::NonCommercial => safelmm_datastore::gate::Use::NonCommercial,
        }
    }
}
