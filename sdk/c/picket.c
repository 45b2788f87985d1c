// What stands between a plugin in C and the contract's generated bindings.
#include "picket.h"

#include <stdlib.h>
#include <string.h>

#include "plugin.h"

#define CHUNK 256

typedef struct {
  picket_type type;
  const char *name;
  const char *help;
  size_t labels;
  const char *names[PICKET_MAX_LABELS];
} family;

typedef struct {
  uint32_t family;
  // The values of its labels, each ended by a 0, in one piece.
  char *values;
  size_t size;
  uint32_t id;
  bool registered;
  bool set;
  double value;
} series;

static family families[PICKET_MAX_FAMILIES];
static size_t family_count;
static series all[PICKET_MAX_SERIES];
static size_t series_count;
static char *refused_reason;
static char *refused_message;
static char *told;

static char *copied(const char *text, size_t size) {
  char *copy = malloc(size + 1);
  if (copy == NULL) abort();
  memcpy(copy, text, size);
  copy[size] = 0;
  return copy;
}

static plugin_string_t view(const char *text) {
  plugin_string_t string;
  plugin_string_set(&string, text);
  return string;
}

uint32_t picket_family(picket_type type, const char *name, const char *help) {
  if (family_count == PICKET_MAX_FAMILIES) abort();
  families[family_count] = (family){.type = type, .name = name, .help = help};
  return (uint32_t)family_count++;
}

void picket_labels(uint32_t number, const char *const *names) {
  family *of = &families[number];
  for (of->labels = 0; names[of->labels] != NULL; of->labels++) {
    if (of->labels == PICKET_MAX_LABELS) abort();
    of->names[of->labels] = names[of->labels];
  }
}

void picket_set(uint32_t number, double value) { picket_set_labelled(number, NULL, value); }

void picket_set_labelled(uint32_t number, const char *const *values, double value) {
  size_t size = 0;
  for (size_t i = 0; i < families[number].labels; i++) size += strlen(values[i]) + 1;
  char *key = copied("", 0);
  key = realloc(key, size + 1);
  if (key == NULL) abort();
  char *at = key;
  for (size_t i = 0; i < families[number].labels; i++) {
    size_t length = strlen(values[i]) + 1;
    memcpy(at, values[i], length);
    at += length;
  }
  for (size_t i = 0; i < series_count; i++) {
    if (all[i].family == number && all[i].size == size && memcmp(all[i].values, key, size) == 0) {
      free(key);
      all[i].set = true;
      all[i].value = value;
      return;
    }
  }
  if (series_count == PICKET_MAX_SERIES) {
    free(key);
    picket_fail("series", "the plugin has more series than PICKET_MAX_SERIES");
    return;
  }
  all[series_count++] = (series){.family = number, .values = key, .size = size, .set = true, .value = value};
}

void picket_fail(const char *reason, const char *message) {
  plugin_string_t r = view(reason), m = view(message);
  picket_source_sink_fail(&r, &m);
}

void picket_refuse(const char *reason, const char *message) {
  free(refused_reason);
  free(refused_message);
  refused_reason = copied(reason, strlen(reason));
  refused_message = copied(message, strlen(message));
}

void picket_log(const char *message) {
  picket_host_log_level_t level = {.tag = PICKET_HOST_LOG_LEVEL_INFO};
  plugin_string_t text = view(message);
  picket_host_log_write(&level, &text);
}

// What a call of the sink's was refused for, kept until the next one.
static const char *why(picket_source_sink_sink_error_t *error) {
  free(told);
  const plugin_string_t *text =
      error->tag == PICKET_SOURCE_SINK_SINK_ERROR_QUOTA ? &error->val.quota.message : &error->val.other;
  told = error->tag == PICKET_SOURCE_SINK_SINK_ERROR_UNKNOWN_ID
             ? copied("a number that is not known", 26)
             : copied((const char *)text->ptr, text->len);
  picket_source_sink_sink_error_free(error);
  return told;
}

void picket_event(const char *kind, picket_severity severity, const char *message, const char *key) {
  picket_source_sink_event_t event = {
      .kind = view(kind),
      .severity = {.tag = (uint8_t)severity},
      .subject = {.kind = view("node"), .id = view("")},
      .message = view(message),
      .key = view(key),
  };
  picket_source_sink_list_event_t list = {.ptr = &event, .len = 1};
  picket_source_sink_sink_error_t error;
  if (!picket_source_sink_emit(&list, &error)) picket_fail("refused", why(&error));
}

char *picket_read_file(const char *path, size_t *size) {
  plugin_string_t name = view(path);
  plugin_list_u8_t content;
  picket_host_files_files_error_t error;
  if (!picket_host_files_read(&name, &content, &error)) {
    static const char *const words[] = {"denied", "not-found", "wrong-kind", "too-large", "timed-out", "io"};
    char *text = copied((const char *)error.val.other.ptr, error.val.other.len);
    picket_refuse(error.tag < sizeof words / sizeof *words ? words[error.tag] : "files", text);
    free(text);
    picket_host_files_files_error_free(&error);
    return NULL;
  }
  char *text = copied((const char *)content.ptr, content.len);
  *size = content.len;
  plugin_list_u8_free(&content);
  return text;
}

// Registers what is new, pushes what was set; after a whole collect what was not set is retired.
static bool push(bool complete) {
  static picket_source_sink_point_t points[CHUNK];
  static uint32_t gone[CHUNK];
  size_t count = 0, ended = 0, kept = 0;
  bool well = true;
  picket_source_sink_sink_error_t error;
  for (size_t i = 0; i < series_count; i++) {
    series *one = &all[i];
    if (one->set && !one->registered) {
      picket_source_sink_label_t labels[PICKET_MAX_LABELS];
      const family *of = &families[one->family];
      const char *at = one->values;
      for (size_t l = 0; l < of->labels; l++) {
        labels[l] = (picket_source_sink_label_t){.name = view(of->names[l]), .value = view(at)};
        at += strlen(at) + 1;
      }
      picket_source_sink_series_definition_t definition = {
          .family = one->family,
          .part = {.tag = PICKET_TYPES_TYPES_PART_VALUE},
          .labels = {.ptr = labels, .len = of->labels},
      };
      picket_source_sink_list_series_definition_t list = {.ptr = &definition, .len = 1};
      picket_source_sink_list_series_id_t ids;
      if (picket_source_sink_register(&list, &ids, &error)) {
        one->id = ids.ptr[0];
        one->registered = true;
        picket_source_sink_list_series_id_free(&ids);
      } else {
        picket_refuse("refused", why(&error));
        well = false;
      }
    }
    bool keep = one->set ? one->registered : one->registered && (!complete || ended == CHUNK);
    if (one->set && one->registered) {
      points[count++] = (picket_source_sink_point_t){.series = one->id, .value = one->value};
    } else if (!keep && one->registered) {
      gone[ended++] = one->id;
    }
    one->set = false;
    if (keep) {
      all[kept++] = *one;
    } else {
      free(one->values);
    }
    if (count == CHUNK || (i + 1 == series_count && count > 0)) {
      picket_source_sink_list_point_t list = {.ptr = points, .len = count};
      if (!picket_source_sink_push(&list, &error)) {
        picket_refuse("refused", why(&error));
        well = false;
      }
      count = 0;
    }
  }
  series_count = kept;
  if (ended > 0) {
    picket_source_sink_list_series_id_t list = {.ptr = gone, .len = ended};
    if (!picket_source_sink_retire(&list, &error)) {
      picket_refuse("refused", why(&error));
      well = false;
    }
  }
  return well;
}

void exports_picket_source_source_describe(exports_picket_source_source_description_t *description) {
  family_count = 0;
  picket_describe();
  // The caller's glue frees it all, so all of it is copied.
  description->families.len = family_count;
  description->families.ptr = calloc(family_count ? family_count : 1, sizeof *description->families.ptr);
  if (description->families.ptr == NULL) abort();
  for (size_t i = 0; i < family_count; i++) {
    picket_types_types_family_t *to = &description->families.ptr[i];
    plugin_string_dup(&to->name, families[i].name);
    plugin_string_dup(&to->help, families[i].help);
    plugin_string_dup(&to->unit, "");
    to->type.tag = (uint8_t)families[i].type;
    if (families[i].labels == 0) continue;
    to->label_names.ptr = calloc(families[i].labels, sizeof *to->label_names.ptr);
    if (to->label_names.ptr == NULL) abort();
    to->label_names.len = families[i].labels;
    for (size_t l = 0; l < families[i].labels; l++) {
      plugin_string_dup(&to->label_names.ptr[l], families[i].names[l]);
    }
  }
}

static bool answer(bool well, exports_picket_source_source_source_error_t *error) {
  if (well) return true;
  plugin_string_dup(&error->reason, refused_reason ? refused_reason : "plugin");
  plugin_string_dup(&error->message, refused_message ? refused_message : "it did not say why");
  return false;
}

bool exports_picket_source_source_configure(plugin_string_t *settings,
                                            exports_picket_source_source_source_error_t *error) {
  char *text = copied((const char *)settings->ptr, settings->len);
  plugin_string_free(settings);
  bool well = picket_configure(text);
  free(text);
  return answer(well, error);
}

bool exports_picket_source_source_collect(exports_picket_source_source_source_error_t *error) {
  bool complete = picket_collect();
  bool well = push(complete);
  return answer(complete && well, error);
}
