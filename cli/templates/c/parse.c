#include "parse.h"

#include <stdlib.h>

bool parse_file_nr(const char *text, file_nr *read) {
  double numbers[3];
  for (int i = 0; i < 3; i++) {
    char *end;
    numbers[i] = strtod(text, &end);
    if (end == text) return false;
    text = end;
  }
  read->open = numbers[0] - numbers[1];
  read->limit = numbers[2];
  return true;
}
