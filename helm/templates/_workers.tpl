{{/* Several Pods of one run. Each Pod is an index of the Job, and its hostname is JOB-INDEX. */}}
{{- define "finetune.workers" -}}
{{- .Values.workers | default 1 | int -}}
{{- end }}

{{/* Of the headless Service. Unlike other names, a Service's must not begin with a digit. */}}
{{- define "finetune.workersName" -}}
{{- $name := printf "%s-workers" (include "finetune.fullname" .) -}}
{{- if regexMatch "^[0-9]" $name }}{{ printf "n%s" $name }}{{ else }}{{ $name }}{{ end -}}
{{- end }}

{{- define "finetune.workersPort" -}}2222{{- end }}

{{/* The Job's name is known in the Pod alone: that of a CronJob's Job has the time of its creation. */}}
{{- define "finetune.workersEnv" -}}
{{- $addresses := list -}}
{{- range $index := until (include "finetune.workers" . | int) -}}
{{- $addresses = append $addresses (printf "$(FINETUNE_RUN__JOB_NAME)-%d.%s:%s" $index (include "finetune.workersName" $) (include "finetune.workersPort" $)) -}}
{{- end -}}
- name: FINETUNE_WORKERS__COUNT
  value: {{ include "finetune.workers" . | quote }}
- name: FINETUNE_WORKERS__INDEX
  valueFrom:
    fieldRef:
      fieldPath: metadata.annotations['batch.kubernetes.io/job-completion-index']
- name: FINETUNE_WORKERS__ADDRESSES
  value: {{ join "," $addresses | quote }}
{{- end }}

{{- define "finetune.retries" -}}
{{- ternary 10 (int (.Values.job).backoffLimit) (kindIs "invalid" (.Values.job).backoffLimit) -}}
{{- end }}

{{/* Fields of a Job with several workers; nothing with one. */}}
{{- define "finetune.indexed" -}}
{{- $workers := include "finetune.workers" . | int -}}
{{- if gt $workers 1 }}
completionMode: Indexed
completions: {{ $workers }}
parallelism: {{ $workers }}
# A worker's failures delay and limit that worker alone; backoffLimit counts the failures of all of them.
backoffLimit: {{ mul (include "finetune.retries" . | int) $workers }}
backoffLimitPerIndex: {{ include "finetune.retries" . }}
# The others cannot finish without it.
maxFailedIndexes: 0
{{- end }}
{{- end }}

{{/* The Pods of the job, without those of `helm test` and of cronjob.plan. */}}
{{- define "finetune.workersSelector" -}}
{{ include "finetune.selectorLabels" . }}
app.kubernetes.io/component: job
{{- end }}

{{/* From worker to worker. NCCL, which several GPUs use, chooses its ports itself. */}}
{{- define "finetune.workersPorts" -}}
ports:
  - protocol: TCP
    {{- if eq (include "finetune.gpus" . | int) 0 }}
    port: {{ include "finetune.workersPort" . }}
    {{- end }}
{{- end }}
