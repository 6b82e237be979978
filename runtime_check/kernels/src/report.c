#include "report.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "provider.h"

enum { LINE = 512, LONGEST = 1 << 22 };

struct report {
  struct report *next;
  uint64_t id;
  char *text;
  size_t length, room;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct report *reports;

static struct report *find(uint64_t id) {
  struct report *report = reports;
  while (report && report->id != id) report = report->next;
  return report;
}

static void append(uint64_t id, const char *line, size_t length) {
  struct report *report = find(id);
  if (!report) {
    if (!(report = calloc(1, sizeof *report))) return;
    report->id = id;
    report->next = reports;
    reports = report;
  }
  if (report->length + length > LONGEST) return;
  if (report->length + length > report->room) {
    const size_t room = 2 * (report->length + length);
    char *text = realloc(report->text, room);
    if (!text) return;
    report->text = text;
    report->room = room;
  }
  memcpy(report->text + report->length, line, length);
  report->length += length;
}

void report_layer(uint64_t id, const char *operator, int64_t nonzeros, int64_t weights, const char *reason,
                  const char *name) {
  char line[LINE];
  if (id == 0) return;
  const int prefix = snprintf(line, sizeof line, "%.32s\t%" PRId64 "\t%" PRId64 "\t%.160s\t", operator, nonzeros,
                              weights, reason ? reason : "");
  if (prefix < 0 || prefix >= LINE) return;
  size_t end = (size_t)prefix;
  for (; *name && end < LINE - 1; name++) line[end++] = (unsigned char)*name < ' ' ? '?' : *name;
  line[end++] = '\n';
  pthread_mutex_lock(&lock);
  append(id, line, end);
  pthread_mutex_unlock(&lock);
}

void report_round(uint64_t id) {
  if (id == 0) return;
  pthread_mutex_lock(&lock);
  append(id, "\n", 1);
  pthread_mutex_unlock(&lock);
}

void report_compiled(uint64_t id) {
  if (id == 0) return;
  pthread_mutex_lock(&lock);
  append(id, "*\n", 2);
  pthread_mutex_unlock(&lock);
}

EXPORTED size_t SparseKernelsReport(uint64_t id, char *buffer, size_t size) {
  pthread_mutex_lock(&lock);
  struct report **link = &reports;
  while (*link && (*link)->id != id) link = &(*link)->next;
  struct report *report = *link;
  const size_t length = report ? report->length : 0;
  if (report && buffer && length <= size) {
    memcpy(buffer, report->text, length);
    *link = report->next;
    free(report->text);
    free(report);
  }
  pthread_mutex_unlock(&lock);
  return length;
}
