// Write a Picket plugin in C: three functions of yours, and what is below.
//
// A plugin declares its families in `picket_describe`, takes its settings in `picket_configure`, and sets values in each
// `picket_collect`. A series that a collect does not set is retired at its end, as it would be gone from an exporter's
// page. What can't be read is left unset, and `picket_fail` says so: never export a made-up number.
//
// What is not here is in `plugin.h`, which `picket plugin build` generates from the contract into `target/picket/c`.
#ifndef PICKET_H
#define PICKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { PICKET_GAUGE = 0, PICKET_COUNTER = 1, PICKET_INFO = 4 } picket_type;
typedef enum { PICKET_EVENT_INFO = 0, PICKET_EVENT_WARNING = 1, PICKET_EVENT_CRITICAL = 2 } picket_severity;

// The most families of a plugin, labels of a series, and series at a time.
#define PICKET_MAX_FAMILIES 64
#define PICKET_MAX_LABELS 16
#define PICKET_MAX_SERIES 4096

// Yours. The texts that are given here must stay where they are.
void picket_describe(void);
// The settings are a JSON object. False, after `picket_refuse`: they are not taken.
bool picket_configure(const char *settings);
// False, after `picket_refuse`: nothing more could be read. What was set before is kept.
bool picket_collect(void);

// In `picket_describe`: declares a family; gives its number.
uint32_t picket_family(picket_type type, const char *name, const char *help);
// The names of its labels, ending with NULL.
void picket_labels(uint32_t family, const char *const *names);

// In `picket_collect`: the value of the series without labels.
void picket_set(uint32_t family, double value);
// As many values as the family has labels, in their order.
void picket_set_labelled(uint32_t family, const char *const *values, double value);

// Something could not be read; the rest goes on. `reason` is a short word.
void picket_fail(const char *reason, const char *message);
// Why `picket_configure` or `picket_collect` gives false.
void picket_refuse(const char *reason, const char *message);
// A line in the agent's log.
void picket_log(const char *message);
// An event about the node itself. `key` names the condition that it begins, and may be empty.
void picket_event(const char *kind, picket_severity severity, const char *message, const char *key);

// Needs the capability `files`. The content, ended by a 0 that `size` does not count, to be given to free(); NULL where it
// could not be read, which was told to `picket_refuse`.
char *picket_read_file(const char *path, size_t *size);

#endif
