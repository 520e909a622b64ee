'use strict';

const DEFAULTS = {
  mode: 'completion', rating: 'G', temperature: '0.8', top_p: '0.95', guidance: '1', max_tokens: '200', seed: '', stop_strings: '',
};
const STORAGE_KEY = 'safelmm.playground';
const EMPTY = {
  completion: 'The continuation appears here. Compare ratings to read the same prompt at each of them.',
  chat: 'The conversation appears here.',
};

const CEILING = 'Above the ceiling of this server';

const $ = (id) => document.getElementById(id);
const radios = (name) => [...document.querySelectorAll(`input[name="${name}"]`)];

const state = {
  model: null, // id of the served model
  rated: true, // false for a model without rating tokens: the rating is then not sent
  messages: [], // the conversation of chat mode
  running: null, // the generation in progress: its AbortController and a promise of its end
};

// ---- Server-sent events

/** Parses a byte stream of server-sent events; the stream may be cut anywhere, inside a character too. */
class SseParser {
  constructor(onData) {
    this.onData = onData;
    this.decoder = new TextDecoder();
    this.rest = '';
    this.data = [];
  }

  push(bytes) { this.feed(this.decoder.decode(bytes, { stream: true })); }

  end() {
    this.feed(this.decoder.decode());
    if (this.rest.endsWith('\r')) this.feed('\n');
  }

  feed(text) {
    // A carriage return at the very end may be the first half of CR LF: it waits for what follows.
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop();
    for (const line of lines) this.line(line);
  }

  line(line) {
    if (line === '') {
      if (this.data.length > 0) this.onData(this.data.join('\n'));
      this.data = [];
    } else if (line === 'data') {
      this.data.push('');
    } else if (line.startsWith('data:')) {
      this.data.push(line.slice(line[5] === ' ' ? 6 : 5));
    }
  }
}

// ---- Server

class ApiError extends Error {
  constructor(message, details = {}) {
    super(message);
    Object.assign(this, { status: 0 }, details);
  }
}

async function call(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError('The server cannot be reached.');
  }
  if (response.ok) return response;
  const { message, code, param } = (await response.json().catch(() => null))?.error ?? {};
  const details = { status: response.status, code, param, retryAfter: response.headers.get('retry-after') };
  throw new ApiError(message ?? `The server answered ${response.status} ${response.statusText}.`, details);
}

/** Posts a streaming request and hands each chunk, parsed, to `onChunk`; returns when the answer is complete. */
async function stream({ path, body }, signal, onChunk) {
  const response = await call(path, {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body), signal,
  });
  let done = false;
  const parser = new SseParser((data) => {
    if (data === '[DONE]') { done = true; return; }
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(chunk.error.message, { status: 500, code: chunk.error.code });
    onChunk(chunk);
  });
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { value, done: closed } = await reader.read();
      if (closed) break;
      parser.push(value);
    }
    parser.end();
  } catch (error) {
    if (error instanceof ApiError || error.name === 'AbortError') throw error;
    throw new ApiError('The answer broke off.');
  } finally {
    reader.cancel().catch(() => {});
  }
  if (!done) throw new ApiError('The answer broke off.');
}

/** What the person at the keyboard can do about an error. */
function advice(error) {
  if (error.advice) return error.advice;
  if (error.code === 'content_policy_violation') return 'A policy of this server refused it. Rephrase the prompt.';
  if (error.status === 401 || error.status === 403) return 'This server wants an API key with the right to do this; ask its operator.';
  if (error.status === 429) return `The server is busy. Try again in ${error.retryAfter ?? 'a few'} seconds.`;
  if (error.param === 'max_tokens' || /maximum context length/.test(error.message)) return 'Lower “Max tokens” or shorten the prompt.';
  if (error.status >= 400 && error.status < 500) return error.param ? `Change “${error.param}” and try again.` : 'Change the request and try again.';
  if (error.status >= 500) return 'Try again; the server’s log says more.';
  return 'Check that the server is running, then try again.';
}

// ---- Settings

const setting = (name) => $(name) ?? { get value() { return radios(name).find((radio) => radio.checked)?.value; } };
const mode = () => setting('mode').value;

function readSettings() {
  return Object.fromEntries(Object.keys(DEFAULTS).map((name) => [name, setting(name).value]));
}

function writeSettings(values) {
  for (const [name, fallback] of Object.entries(DEFAULTS)) {
    const value = String(values[name] ?? fallback);
    const choices = radios(name);
    if (choices.length === 0) $(name).value = value;
    else (choices.find((radio) => radio.value === value) ?? choices[0]).checked = true;
  }
}

function loadSettings() {
  try {
    return JSON.parse(localStorage.getItem(STORAGE_KEY)) ?? {};
  } catch {
    return {}; // storage is switched off or holds something else: the defaults do
  }
}

function settingsChanged() {
  for (const output of document.querySelectorAll('.field output')) {
    output.value = Number($(output.htmlFor.value).value).toFixed(output.htmlFor.value === 'guidance' ? 1 : 2);
  }
  $('curl').textContent = curl(buildRequest(setting('rating').value));
  try {
    localStorage.setItem(STORAGE_KEY, JSON.stringify(readSettings()));
  } catch { /* storage is switched off: the settings last as long as the page */ }
}

/** Shows the first value that no request can carry, if there is one. */
function settingsAreValid() {
  const wrong = ['max_tokens', 'seed'].map($).find((input) => !input.checkValidity());
  if (wrong) {
    $('sampling').open = true;
    wrong.reportValidity();
  }
  return !wrong;
}

// ---- Requests

function stopStrings() {
  return $('stop_strings').value.split('\n').filter((line) => line !== '').map((line) => line.replaceAll('\\n', '\n'));
}

/** The request that the page would send now: its path and its body. An empty seed is left to the server. */
function buildRequest(rating, seed = $('seed').value) {
  const prompt = $('prompt').value;
  const body = state.model === null ? {} : { model: state.model };
  if (mode() === 'chat') body.messages = prompt === '' ? [...state.messages] : [...state.messages, { role: 'user', content: prompt }];
  else body.prompt = prompt;
  if ($('max_tokens').value !== '') body.max_tokens = Number($('max_tokens').value);
  body.temperature = Number($('temperature').value);
  body.top_p = Number($('top_p').value);
  if (seed !== '') body.seed = Number(seed);
  if (stopStrings().length > 0) body.stop = stopStrings();
  body.stream = true;
  body.stream_options = { include_usage: true };
  if (state.rated) body.safelmm = { rating, guidance: Number($('guidance').value) };
  return { path: mode() === 'chat' ? '/v1/chat/completions' : '/v1/completions', body };
}

function curl({ path, body }) {
  const quoted = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  return `curl -N ${location.origin}${path} \\\n  -H 'Content-Type: application/json' \\\n  -d '${quoted}'`;
}

const rollSeed = () => String(crypto.getRandomValues(new Uint32Array(1))[0]);

// ---- One answer, streamed into one element

function element(tag, className, text = '') {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

/** Where an answer is written, behind `echo` where it continues a text; screen readers hear it when it is complete. */
function answerView(status, echo = '') {
  const text = element('div', 'text');
  const written = element('span', 'written');
  written.setAttribute('aria-live', 'polite');
  if (echo !== '') text.append(element('span', 'echo', echo));
  text.append(written);
  return { text, written, status, continues: echo !== '' };
}

function statusLine(figures, request) {
  const { started, first, last, tokens, exact, finish, rating } = figures;
  const parts = [];
  if (tokens > 0) {
    const seconds = (last - first) / 1000;
    parts.push(`${exact ? '' : '≈ '}${tokens} token${tokens === 1 ? '' : 's'}`);
    if (tokens > 1 && seconds > 0.005) parts.push(`${((tokens - 1) / seconds).toFixed(1)} tokens/s`);
    parts.push(`first token ${Math.round(first - started)} ms`);
  }
  if (finish) parts.push(`finish: ${finish}`);
  if (request.body.safelmm) parts.push(`rating ${rating ?? request.body.safelmm.rating}`);
  return [...parts, `seed ${request.body.seed}`].join(' · ');
}

/** Streams the answer to `request` into `view`. Stopping is no error. */
async function streamInto(view, request, signal) {
  const figures = { started: performance.now(), first: null, last: null, tokens: 0, exact: false, finish: null, rating: null };
  const output = $('output');
  const show = () => { view.status.textContent = statusLine(figures, request); };
  const onChunk = (chunk) => {
    const choice = chunk.choices?.[0];
    let piece = choice?.text ?? choice?.delta?.content ?? '';
    if (figures.tokens === 0 && !view.continues) piece = piece.trimStart();
    if (piece !== '') {
      const atBottom = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
      view.written.append(piece); // a string becomes a text node: model text is never markup
      if (atBottom) output.scrollTop = output.scrollHeight;
      figures.last = performance.now();
      figures.first ??= figures.last;
      figures.tokens += 1;
    }
    figures.finish = choice?.finish_reason ?? figures.finish;
    figures.rating = chunk.safelmm?.rating ?? figures.rating;
    if (chunk.usage) Object.assign(figures, { tokens: chunk.usage.completion_tokens, exact: true });
    show();
  };
  view.text.setAttribute('aria-busy', 'true');
  view.status.setAttribute('aria-busy', 'true');
  view.status.textContent = 'Waiting for the first token…';
  try {
    await stream(request, signal, onChunk);
    show();
  } catch (error) {
    figures.finish = error.name === 'AbortError' ? 'stopped' : 'error';
    if (figures.finish === 'stopped' || figures.tokens > 0) show();
    else view.status.textContent = '';
    if (error.name !== 'AbortError') throw error;
  } finally {
    view.text.removeAttribute('aria-busy');
    view.status.removeAttribute('aria-busy');
    view.written.normalize();
  }
}

// ---- The three things the page does

async function complete(signal) {
  const request = buildRequest(setting('rating').value, $('seed').value || rollSeed());
  const view = answerView($('status'), request.body.prompt);
  $('output').replaceChildren(view.text);
  try {
    await streamInto(view, request, signal);
  } finally {
    if (view.written.textContent === '') $('output').replaceChildren();
  }
}

async function chat(signal) {
  const question = $('prompt').value;
  const request = buildRequest(setting('rating').value, $('seed').value || rollSeed());
  if (request.body.messages.length === state.messages.length) throw new ApiError('There is no message.', { advice: 'Write one and send it.' });
  const view = answerView($('status'));
  showConversation();
  $('output').append(message('user', element('div', 'text', question)), message('assistant', view.text));
  $('output').scrollTop = $('output').scrollHeight;
  $('prompt').value = '';
  try {
    await streamInto(view, request, signal);
  } finally {
    const answer = view.written.textContent;
    if (answer !== '') state.messages = [...request.body.messages, { role: 'assistant', content: answer }];
    else if ($('prompt').value === '') $('prompt').value = question; // nothing was answered: the question goes back
    showConversation();
  }
}

/** The same prompt and seed at every rating, side by side. */
async function compare(signal) {
  const seed = $('seed').value || rollSeed();
  document.body.classList.add('comparing');
  $('output').replaceChildren();
  $('status').textContent = `Same prompt and seed (${seed}) at every rating.`;
  await Promise.all(radios('rating').map(async ({ value: rating, disabled }) => {
    const view = answerView(element('p', 'quiet'));
    const column = element('article', 'column');
    column.dataset.rating = rating;
    column.append(element('h2', '', rating), ...(disabled ? [element('p', 'quiet', CEILING)] : [view.text, view.status]));
    $('output').append(column);
    if (disabled) return;
    await streamInto(view, buildRequest(rating, seed), signal).catch((error) => {
      column.append(element('p', 'failed', `${error.message} ${advice(error)}`));
    });
  }));
}

// ---- The page

function message(role, text) {
  const node = element('article', `message ${role}`);
  node.append(element('h2', '', role === 'user' ? 'You' : 'Model'), text);
  return node;
}

function showConversation() {
  const nodes = mode() !== 'chat' ? [] : state.messages.map(({ role, content }) => message(role, element('div', 'text', content)));
  document.body.classList.remove('comparing');
  $('output').replaceChildren(...nodes);
  $('output').scrollTop = $('output').scrollHeight;
  $('clear').hidden = nodes.length === 0;
}

function showMode() {
  const chatting = mode() === 'chat';
  document.body.classList.toggle('chat', chatting);
  // Reading order is screen order: a conversation stands above the box it is continued in, a continuation below it.
  if (chatting) $('modes').after($('answer'));
  else $('composer').after($('answer'));
  $('prompt-label').textContent = chatting ? 'Message' : 'Text to continue';
  $('prompt').placeholder = chatting ? 'Write a message' : 'Write the beginning of a text';
  $('generate').textContent = chatting ? 'Send' : 'Generate';
  $('output').dataset.empty = EMPTY[mode()];
  $('status').textContent = '';
  hideError();
  showConversation();
}

function showError(error) {
  $('error').hidden = false;
  $('error').querySelector('strong').textContent = error.message;
  $('error').querySelector('p').textContent = advice(error);
}

function hideError() { $('error').hidden = true; }

function showRunning(running) {
  // aria-disabled and not disabled: a disabled button would drop the keyboard focus.
  for (const id of ['generate', 'compare']) $(id).setAttribute('aria-disabled', String(running || (id === 'compare' && !state.rated)));
  $('stop').setAttribute('aria-disabled', String(!running));
}

async function start(action) {
  if (state.running || !settingsAreValid()) return;
  const controller = new AbortController();
  hideError();
  document.body.classList.remove('comparing');
  const ended = action(controller.signal).catch(showError);
  state.running = { controller, ended };
  showRunning(true);
  await ended;
  state.running = null;
  showRunning(false);
  settingsChanged();
}

/** Stops the generation in progress, if there is one, and waits until it has put its partial answer away. */
async function stop() {
  state.running?.controller.abort();
  await state.running?.ended;
}

const generate = () => start(mode() === 'chat' ? chat : complete);

async function copyCurl() {
  const text = $('curl').textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // without HTTPS browsers offer no clipboard: the selected text is there for the person to copy
    getSelection().selectAllChildren($('curl'));
    if (!document.execCommand('copy')) return;
  }
  $('copy').textContent = 'Copied';
  setTimeout(() => { $('copy').textContent = 'Copy'; }, 1500);
}

function describe({ id, safelmm: { parameters, context_length: context } = {} }) {
  const count = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 3 });
  const parts = [id];
  if (parameters) parts.push(`${count.format(parameters)} parameters`);
  if (context) parts.push(`${context.toLocaleString('en')} tokens of context`);
  return parts.join(' · ');
}

function offerRatings(offered) {
  for (const radio of radios('rating')) {
    radio.disabled = !offered.includes(radio.value);
    if (radio.disabled && state.rated) radio.parentElement.querySelector('small').textContent = CEILING;
    if (radio.disabled && radio.checked) radios('rating')[0].checked = true;
  }
  $('guidance').disabled = !state.rated;
  if (!state.rated) document.querySelector('#ratings legend span').textContent = 'this model was trained without ratings';
}

async function loadModel() {
  try {
    const { data: [model] } = await (await call('/v1/models')).json();
    state.model = model.id;
    state.rated = model.safelmm?.rated ?? true;
    $('model').textContent = describe(model);
    offerRatings(state.rated ? model.safelmm?.ratings ?? radios('rating').map((radio) => radio.value) : []);
    const context = model.safelmm?.context_length;
    if (Number($('max_tokens').value) > context) $('max_tokens').value = Math.floor(context / 2);
  } catch (error) {
    $('model').textContent = 'No model';
    showError(error instanceof ApiError ? error : new ApiError('The server names no model.', { status: 500 }));
  }
  showRunning(state.running !== null);
  settingsChanged();
}

function wire() {
  const onClick = { generate, stop, compare: () => { if (state.rated) start(compare); }, copy: copyCurl };
  for (const [id, action] of Object.entries(onClick)) $(id).addEventListener('click', action);
  $('dice').addEventListener('click', () => { $('seed').value = rollSeed(); settingsChanged(); });
  $('clear').addEventListener('click', async () => { await stop(); state.messages = []; showMode(); settingsChanged(); $('prompt').focus(); });
  $('reset').addEventListener('click', () => { writeSettings({ ...DEFAULTS, mode: mode(), rating: setting('rating').value }); settingsChanged(); });
  for (const radio of radios('mode')) radio.addEventListener('change', async () => { await stop(); showMode(); settingsChanged(); });
  document.addEventListener('input', settingsChanged);
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') stop();
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) { event.preventDefault(); generate(); }
  });
}

writeSettings(loadSettings());
if (matchMedia('(max-width: 60rem)').matches) $('sampling').open = false;
wire();
showMode();
settingsChanged();
loadModel();
