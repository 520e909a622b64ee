// A safety policy for SafeLMM: prompts with an excluded word are refused, and in answers it is masked.
//
// The contract is wit/policy.wit; `wit-bindgen c` makes policy.h of it. What a function is given is its own to free, and
// what it returns is freed behind it.

#include <stdlib.h>
#include <string.h>

#include "policy.h"

static const char CATEGORY[] = "excluded-word";
static const char *const WORDS[] = {"turnip", "swede"};
#define COUNT (sizeof WORDS / sizeof *WORDS)

static char lower(uint8_t c) { return c >= 'A' && c <= 'Z' ? c + 'a' - 'A' : (char)c; }

// Memory that does not come is a trap: the host blocks or passes the text, as the operator wants it.
static void *take(size_t size) {
    void *memory = malloc(size ? size : 1);
    if (!memory) __builtin_trap();
    return memory;
}

// How many bytes of the text from `at` on are those of the word.
static size_t common(const policy_string_t *text, size_t at, const char *word) {
    size_t n = 0;
    while (word[n] && at + n < text->len && lower(text->ptr[at + n]) == word[n]) n++;
    return n;
}

// The length of the excluded word that stands at `at`; 0 where there is none.
static size_t word_at(const policy_string_t *text, size_t at) {
    for (size_t i = 0; i < COUNT; i++)
        if (common(text, at, WORDS[i]) == strlen(WORDS[i])) return strlen(WORDS[i]);
    return 0;
}

// Whether the end of the text from `at` on may be the beginning of an excluded word.
static bool begins_at(const policy_string_t *text, size_t at) {
    for (size_t i = 0; i < COUNT; i++)
        if (common(text, at, WORDS[i]) == text->len - at) return true;
    return false;
}

static safelmm_policy_types_finding_t finding(size_t start, size_t length) {
    safelmm_policy_types_finding_t found = {.score = 1, .where = {true, {start, start + length}}};
    policy_string_dup(&found.category, CATEGORY);
    policy_string_dup(&found.reason, "A word that is excluded here.");
    return found;
}

// --- what the policy is

void exports_safelmm_policy_meta_describe(exports_safelmm_policy_meta_description_t *ret) {
    memset(ret, 0, sizeof *ret);
    policy_string_dup(&ret->name, "{{name}}");
    policy_string_dup(&ret->version, "0.1.0");
    policy_string_dup(&ret->summary, "Excludes words.");
    ret->hooks.len = 2;
    ret->hooks.ptr = take(2 * sizeof *ret->hooks.ptr);
    ret->hooks.ptr[0] = SAFELMM_POLICY_TYPES_HOOK_SCREEN_PROMPT;
    ret->hooks.ptr[1] = SAFELMM_POLICY_TYPES_HOOK_INSPECT_STREAM;
    ret->categories.len = 1;
    ret->categories.ptr = take(sizeof *ret->categories.ptr);
    policy_string_dup(ret->categories.ptr, CATEGORY);
    policy_string_dup(&ret->settings_schema,
                      "{\"$schema\": \"https://json-schema.org/draft/2020-12/schema\", \"type\": \"object\", "
                      "\"additionalProperties\": false}");
}

// There is nothing to set: an empty object, or nothing at all.
bool exports_safelmm_policy_meta_configure(policy_string_t *settings,
                                           exports_safelmm_policy_meta_list_setting_error_t *err) {
    bool fits = true;
    for (size_t i = 0; i < settings->len; i++) fits = fits && strchr("{} \t\r\n", settings->ptr[i]);
    policy_string_free(settings);
    if (fits) return true;
    err->len = 1;
    err->ptr = take(sizeof *err->ptr);
    policy_string_dup(&err->ptr->pointer, "");
    policy_string_dup(&err->ptr->message, "This policy has no settings: an empty object, {}, is expected.");
    return false;
}

static exports_safelmm_policy_meta_vector_t vector(const char *name, uint8_t expected) {
    exports_safelmm_policy_meta_vector_t made = {.expected = expected};
    policy_string_dup(&made.name, name);
    return made;
}

static exports_safelmm_policy_meta_vector_t prompt(const char *name, const char *text, uint8_t expected) {
    exports_safelmm_policy_meta_vector_t made = vector(name, expected);
    made.probe.tag = SAFELMM_POLICY_TYPES_PROBE_SCREEN_PROMPT;
    policy_string_dup(&made.probe.val.screen_prompt, text);
    return made;
}

static exports_safelmm_policy_meta_vector_t stream(const char *name, const char *first, const char *second,
                                                   uint8_t expected, const char *text) {
    exports_safelmm_policy_meta_vector_t made = vector(name, expected);
    made.probe.tag = SAFELMM_POLICY_TYPES_PROBE_INSPECT_STREAM;
    made.probe.val.inspect_stream.len = 2;
    made.probe.val.inspect_stream.ptr = take(2 * sizeof(policy_string_t));
    policy_string_dup(&made.probe.val.inspect_stream.ptr[0], first);
    policy_string_dup(&made.probe.val.inspect_stream.ptr[1], second);
    made.text.is_some = true;
    policy_string_dup(&made.text.val, text);
    return made;
}

void exports_safelmm_policy_meta_vectors(exports_safelmm_policy_meta_list_vector_t *ret) {
    ret->len = 4;
    ret->ptr = take(4 * sizeof *ret->ptr);
    ret->ptr[0] = prompt("another word", "A carrot, please.", SAFELMM_POLICY_TYPES_OUTCOME_ALLOW);
    ret->ptr[1] = prompt("an excluded word", "A Turnip, please.", SAFELMM_POLICY_TYPES_OUTCOME_DENY);
    ret->ptr[2] = stream("in two pieces", "Eat a tur", "nip.", SAFELMM_POLICY_TYPES_OUTCOME_REWRITE, "Eat a ***.");
    ret->ptr[3] = stream("only the beginning", "Take a tur", "n.", SAFELMM_POLICY_TYPES_OUTCOME_ALLOW, "Take a turn.");
}

// --- whole texts

void exports_safelmm_policy_texts_screen_prompt(exports_safelmm_policy_texts_request_t *request, policy_string_t *text,
                                                exports_safelmm_policy_texts_verdict_t *ret) {
    ret->tag = SAFELMM_POLICY_TYPES_VERDICT_ALLOW;
    for (size_t at = 0; at < text->len; at++) {
        size_t length = word_at(text, at);
        if (!length) continue;
        ret->tag = SAFELMM_POLICY_TYPES_VERDICT_DENY;
        ret->val.deny.len = 1;
        ret->val.deny.ptr = take(sizeof *ret->val.deny.ptr);
        *ret->val.deny.ptr = finding(at, length);
        break;
    }
    exports_safelmm_policy_texts_request_free(request);
    policy_string_free(text);
}

void exports_safelmm_policy_texts_filter_passages(exports_safelmm_policy_texts_request_t *request,
                                                  exports_safelmm_policy_texts_list_passage_t *passages,
                                                  exports_safelmm_policy_texts_list_verdict_t *ret) {
    ret->len = passages->len;
    ret->ptr = take(ret->len * sizeof *ret->ptr);
    for (size_t i = 0; i < ret->len; i++) ret->ptr[i].tag = SAFELMM_POLICY_TYPES_VERDICT_ALLOW;
    exports_safelmm_policy_texts_request_free(request);
    exports_safelmm_policy_texts_list_passage_free(passages);
}

void exports_safelmm_policy_texts_review_response(exports_safelmm_policy_texts_request_t *request,
                                                  policy_string_t *text,
                                                  exports_safelmm_policy_texts_list_document_t *sources,
                                                  exports_safelmm_policy_texts_verdict_t *ret) {
    ret->tag = SAFELMM_POLICY_TYPES_VERDICT_ALLOW;
    exports_safelmm_policy_texts_request_free(request);
    policy_string_free(text);
    exports_safelmm_policy_texts_list_document_free(sources);
}

// --- an answer that is being written

// What it needs to remember would stand here.
struct exports_safelmm_policy_generation_session_t {
    char unused;
};

exports_safelmm_policy_generation_own_session_t exports_safelmm_policy_generation_constructor_session(
    exports_safelmm_policy_generation_request_t *request, policy_string_t *prompt) {
    exports_safelmm_policy_generation_request_free(request);
    policy_string_free(prompt);
    return exports_safelmm_policy_generation_session_new(take(sizeof(exports_safelmm_policy_generation_session_t)));
}

void exports_safelmm_policy_generation_session_destructor(exports_safelmm_policy_generation_session_t *session) {
    free(session);
}

void exports_safelmm_policy_generation_method_session_adjust_logits(
    exports_safelmm_policy_generation_borrow_session_t self, uint32_t *maybe_drawn,
    exports_safelmm_policy_generation_candidates_t *candidates, exports_safelmm_policy_generation_biases_t *ret) {
    (void)self, (void)maybe_drawn;
    memset(ret, 0, sizeof *ret);
    exports_safelmm_policy_generation_candidates_free(candidates);
}

void exports_safelmm_policy_generation_method_session_inspect_stream(
    exports_safelmm_policy_generation_borrow_session_t self, policy_string_t *pending,
    exports_safelmm_policy_generation_list_document_t *maybe_sources, exports_safelmm_policy_generation_action_t *ret) {
    (void)self;
    // Masks are shorter than the words, and there are no more findings than bytes.
    policy_string_t out = {take(pending->len), 0};
    safelmm_policy_types_list_finding_t findings = {take(pending->len * sizeof *findings.ptr), 0};
    size_t hold = 0;
    for (size_t at = 0; at < pending->len;) {
        size_t length = word_at(pending, at);
        if (length) {
            hold = 0;
            findings.ptr[findings.len++] = finding(at, length);
            memcpy(out.ptr + out.len, "***", 3);
            out.len += 3;
            at += length;
            continue;
        }
        // The last call has the sources of the answer: nothing follows, and nothing can be held.
        if (!maybe_sources && !hold && begins_at(pending, at)) hold = pending->len - at;
        out.ptr[out.len++] = pending->ptr[at++];
    }
    policy_string_free(pending);
    if (maybe_sources) exports_safelmm_policy_generation_list_document_free(maybe_sources);
    if (findings.len) {
        ret->tag = SAFELMM_POLICY_TYPES_ACTION_REPLACE;
        ret->val.replace.text = out;
        ret->val.replace.hold = hold;
        ret->val.replace.findings = findings;
        return;
    }
    free(out.ptr);
    free(findings.ptr);
    ret->tag = hold ? SAFELMM_POLICY_TYPES_ACTION_HOLD : SAFELMM_POLICY_TYPES_ACTION_PASS;
    ret->val.hold = hold;
}
