variable "build" {
  description = "The account that builds the image, the repository that it goes to, and what the build is told."
  type        = object({ service_account = string, repository = string, environment = map(string) })
}

variable "description" {
  type = string
}

variable "entry_point" {
  type = string
}

variable "environment" {
  type = map(string)
}

variable "from_anywhere" {
  description = "Whether calls may come from outside the project; they are authorised in any case."
  type        = bool
}

variable "invokers" {
  description = "Members that may call it, by a name that is known before they are."
  type        = map(string)
}

variable "labels" {
  type = map(string)
}

variable "name" {
  type = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,62}$", var.name)) && !endswith(var.name, "-")
    error_message = "A function's name has up to 63 lower-case letters, digits and hyphens: shorten the folder's."
  }
}

variable "project" {
  type = string
}

variable "region" {
  type = string
}

variable "scaling" {
  type = object({ memory = string, timeout = number, concurrency = number, instances = number })
}

variable "secrets" {
  description = "The secret and its version behind each variable."
  type        = map(object({ id = string, version = string }))
}

variable "source_archive" {
  type = object({ bucket = string, object = string })
}
