#include "parse.h"

#include <stdio.h>

static int failed;

#define CHECK(what)                                     \
  do {                                                  \
    if (!(what)) {                                      \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
      failed = 1;                                       \
    }                                                   \
  } while (0)

int main(void) {
  file_nr read;
  CHECK(parse_file_nr("1100\t100\t10000\n", &read));
  CHECK(read.open == 1000 && read.limit == 10000);
  CHECK(!parse_file_nr("", &read));
  CHECK(!parse_file_nr("12 nonsense", &read));
  return failed;
}
