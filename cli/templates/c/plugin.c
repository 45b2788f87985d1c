// How many files the node has open, and how many it may.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parse.h"
#include "picket.h"

#define FILE_NR "/proc/sys/fs/file-nr"

static uint32_t open_files, limit_of_open_files;
static double warn_above = 0.9;

void picket_describe(void) {
  open_files = picket_family(PICKET_GAUGE, "{{snake}}_open_files", "Files that are open on the node.");
  limit_of_open_files =
      picket_family(PICKET_GAUGE, "{{snake}}_open_files_limit", "Files that may be open on the node.");
}

// As [config] in plugin.toml describes them; the node has checked them already.
bool picket_configure(const char *settings) {
  const char *at = strstr(settings, "\"warn_above\":");
  if (at != NULL) warn_above = strtod(at + strlen("\"warn_above\":"), NULL);
  return true;
}

bool picket_collect(void) {
  size_t size;
  char *text = picket_read_file(FILE_NR, &size);
  if (text == NULL) return false;
  file_nr read;
  bool well = parse_file_nr(text, &read);
  free(text);
  if (!well) {
    picket_refuse("parse", FILE_NR " has not three numbers");
    return false;
  }
  picket_set(open_files, read.open);
  picket_set(limit_of_open_files, read.limit);
  if (read.limit > 0 && read.open / read.limit > warn_above) {
    char message[128];
    snprintf(message, sizeof message, "%.0f of %.0f files are open", read.open, read.limit);
    picket_event("{{name}}.many-open-files", PICKET_EVENT_WARNING, message, "open-files");
  }
  return true;
}
