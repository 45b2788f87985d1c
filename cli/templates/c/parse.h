#ifndef PARSE_H
#define PARSE_H

#include <stdbool.h>

typedef struct {
  double open;
  double limit;
} file_nr;

// `allocated unused limit`. Knows nothing of the node, so that a test can call it.
bool parse_file_nr(const char *text, file_nr *read);

#endif
